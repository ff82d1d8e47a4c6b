//! What a template may cost (I8). Hides the counting: callers say what they are about to do, and get a fault that names
//! the limit instead of a process that has run out of stack, memory or time.

use super::error::{Fault, RenderErrorKind};

/// Longest source, in bytes (64 KiB).
pub const SOURCE_BYTES: usize = 64 * 1024;
/// Longest source together with a copy of each snippet it uses, in bytes (256 KiB).
pub const SOURCE_BYTES_WITH_SNIPPETS: usize = 256 * 1024;
/// How deep snippets may use each other.
pub const SNIPPET_DEPTH: usize = 8;
/// Most tokens in one `{{ … }}` or `{% … %}`.
pub const EXPRESSION_TOKENS: usize = 1_500;
/// Deepest nesting inside one expression. Chains (`a ~ b ~ c`, `a.b.c`, `x|f|g`) are kept flat and count once, because
/// nothing recurses along them.
pub const EXPRESSION_DEPTH: usize = 60;
/// Deepest nesting of block tags.
pub const TAG_DEPTH: usize = 100;
/// Most `elif` arms of one `if`.
pub const ELIF_ARMS: usize = 200;
/// Most errors listed by one compile; the rest are not looked for.
pub const ERRORS: usize = 100;
/// Steps of one render: a node, an expression, a loop pass, and work on long values in proportion to their length.
pub const STEPS: usize = 50_000;
/// Bytes of long values looked at for one step.
pub const BYTES_PER_STEP: usize = 1024;
/// Bytes of the text of a list or map that are written for one step: its entries cost, however short they are.
pub const PRINTED_BYTES_PER_STEP: usize = 64;
/// List or map entries looked at for one step.
pub const ITEMS_PER_STEP: usize = 16;
/// Longest output, in bytes (1 MiB).
pub const OUTPUT_BYTES: usize = 1024 * 1024;
/// Longest string a template can build, in bytes (1 MiB).
pub const STRING_BYTES: usize = 1024 * 1024;
/// Most entries of a list or map a template can build.
pub const ITEMS: usize = 10_000;
/// Bytes one render may build in all, whether kept or not (8 MiB). The context it was given is not counted.
pub const BUDGET_BYTES: usize = 8 * 1024 * 1024;
/// What one entry of a built list or map costs of [`BUDGET_BYTES`].
pub const BYTES_PER_ITEM: usize = 64;
/// Deepest nesting of lists and maps, from JSON or built by a template. The depth serde_json reads.
pub const VALUE_DEPTH: u32 = 128;
/// Deepest nesting `fromjson` reads (the depth of a body, D16).
pub const FROMJSON_DEPTH: usize = 64;
/// Widest a directive of `format` fills up to, and most digits it writes.
pub const FORMAT_WIDTH: usize = 10_000;
/// Longest regular expression, in bytes.
pub const PATTERN_SOURCE_BYTES: usize = 1_000;
/// What the regular expressions of one template may compile to in all, in KiB (1 MiB).
pub const PATTERN_KIB: usize = 1_024;
/// Most names a template can have set at one time. They are searched one by one.
pub const NAMES: usize = 1_000;
/// Most missing paths remembered by one render (D32).
pub const MISSING_PATHS: usize = 100;
/// Deepest nesting while a template runs: blocks and expressions that wait for one inside, through macros too, which count
/// for several. What the limits on the text allow without macros always fits.
pub const RUN_DEPTH: usize = 200;
/// Most macros that wait for a macro inside, itself perhaps.
pub const MACRO_DEPTH: usize = 20;
/// Most items `range` gives; it stops there without an error, as in Jinjava (F87).
pub const RANGE_ITEMS: usize = 1_000;
/// Most different names a template can write.
pub const NAMES_WRITTEN: usize = 65_535;
/// Most names a template can take from its context.
pub const ROOTS: usize = 1_000;
/// Longest missing path as it is remembered and shown, in bytes; longer ones are cut and end in `…`.
pub const PATH_BYTES: usize = 512;

/// What is left for one render.
pub(super) struct Meter {
    most: usize,
    steps: usize,
    bytes: usize,
}

impl Meter {
    pub(super) fn new(steps: usize) -> Meter {
        Meter { most: steps, steps, bytes: BUDGET_BYTES }
    }

    /// Steps done so far.
    pub(super) fn done(&self) -> usize {
        self.most - self.steps
    }

    pub(super) fn steps(&mut self, steps: usize) -> Result<(), Box<Fault>> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(over("steps", self.most)),
        }
    }

    /// How long the text of a list or map may get: `limit`, or what the steps that are left allow.
    pub(super) fn printable(&self, limit: usize) -> usize {
        limit.min(self.steps.saturating_mul(PRINTED_BYTES_PER_STEP))
    }

    /// The fault of a text that got longer than [`printable`](Self::printable).
    pub(super) fn unprintable(&self, what: &str, limit: usize) -> Box<Fault> {
        if self.printable(limit) < limit { over("steps", self.most) } else { over(what, limit) }
    }

    /// Having written `bytes` of the text of a list or map.
    pub(super) fn printed(&mut self, bytes: usize) -> Result<(), Box<Fault>> {
        self.steps(bytes / PRINTED_BYTES_PER_STEP)
    }

    /// Reading through `bytes` of text.
    pub(super) fn reading(&mut self, bytes: usize) -> Result<(), Box<Fault>> {
        self.steps(bytes / BYTES_PER_STEP)
    }

    /// Going through `items` entries.
    pub(super) fn visiting(&mut self, items: usize) -> Result<(), Box<Fault>> {
        self.steps(items.div_ceil(ITEMS_PER_STEP))
    }

    /// Building a string of `bytes`. Call before building it.
    pub(super) fn string(&mut self, bytes: usize) -> Result<(), Box<Fault>> {
        if bytes > STRING_BYTES {
            return Err(over("bytes in one string", STRING_BYTES));
        }
        self.reading(bytes)?;
        self.spend(bytes)
    }

    /// Building a list or map of `items` entries. Call before building it.
    pub(super) fn items(&mut self, items: usize) -> Result<(), Box<Fault>> {
        if items > ITEMS {
            return Err(over("entries in one list or map", ITEMS));
        }
        self.visiting(items)?;
        self.spend(items * BYTES_PER_ITEM)
    }

    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), Box<Fault>> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => Err(over("bytes built in all", BUDGET_BYTES)),
        }
    }
}

/// The fault of having gone over `limit`.
pub(super) fn over(what: &str, limit: usize) -> Box<Fault> {
    Fault::new(RenderErrorKind::Limit, format!("the template goes over the limit of {limit} {what}"))
}
