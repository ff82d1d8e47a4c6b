//! What a command may cost (I8). Each error says which limit was hit.

/// Longest command, imported or exported, in bytes (256 KiB).
pub const COMMAND_BYTES: usize = 256 * 1024;
/// Most words of a command.
pub const WORDS: usize = 1_000;
