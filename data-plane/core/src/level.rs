//! Which configuration a build understands: one number that both planes know.
//!
//! A data plane says its level when it connects. The contract says of a field or an enum's value which level it came with (the option
//! `config_level`, `level.proto`), so the control plane knows what a published document needs, refuses to put it in force while a connected
//! data plane is too old for it, and never cuts a document down to what an old one understands: what is left out of an authorization or a
//! filter lets through what should be refused.

/// The highest level that this build understands. Raised with whatever a data plane must know to do what is configured, in the same release.
///
/// | Level | What it brought |
/// |---|---|
/// | 1 | Everything before levels were counted. Data planes that say no level are taken for these. |
/// | 2 | Workflows that the members of an audience start (R126, `Trigger.audience`): the newest meaning of the contract when levels began. Builds before it refuse such a workflow, and with it the revision. |
///
/// What changes the meaning without a new field or value (another default, say) is given a field of its own, so that it can be seen in a
/// document which meaning its author wanted.
pub const CONFIG_LEVEL: i32 = 2;
