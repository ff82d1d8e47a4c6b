//! How languages write dates. Hides the names of months and days and the patterns of each style: what Java prints for
//! the same language, for those that are here.

/// One language.
#[derive(Debug)]
pub(super) struct Locale {
    tags: &'static [&'static str],
    /// As they stand in a date.
    pub(super) months: [&'static str; 12],
    pub(super) short_months: [&'static str; 12],
    /// As they stand alone.
    pub(super) months_alone: [&'static str; 12],
    /// From Sunday on.
    pub(super) days: [&'static str; 7],
    pub(super) short_days: [&'static str; 7],
    /// Before and after noon.
    pub(super) halves: [&'static str; 2],
    styles: [Style; 4],
}

/// Patterns in Java's letters.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) date: &'static str,
    pub(super) time: &'static str,
    /// Between date and time.
    pub(super) between: &'static str,
}

const fn style(date: &'static str, time: &'static str, between: &'static str) -> Style {
    Style { date, time, between }
}

impl Locale {
    /// `de`, `de-DE`; of other regions only what is known is known.
    pub(super) fn tagged(tag: &str) -> Option<&'static Locale> {
        let tag = tag.replace('_', "-");
        let known = |locale: &&Locale| locale.tags.iter().any(|known| tag.eq_ignore_ascii_case(known));
        [&ENGLISH, &GERMAN, &POLISH, &SWEDISH].into_iter().find(known)
    }

    /// `short`, `medium`, `long` or `full`.
    pub(super) fn style(&self, name: &str) -> Option<&Style> {
        let known = ["short", "medium", "long", "full"].iter().position(|known| known.eq_ignore_ascii_case(name))?;
        self.styles.get(known)
    }
}

const ENGLISH_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) static ENGLISH: Locale = Locale {
    tags: &["en", "en-US"],
    months: ENGLISH_MONTHS,
    short_months: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
    months_alone: ENGLISH_MONTHS,
    days: ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"],
    short_days: ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"],
    halves: ["AM", "PM"],
    styles: [
        style("M/d/yy", "h:mm a", ", "),
        style("MMM d, y", "h:mm:ss a", ", "),
        style("MMMM d, y", "h:mm:ss a z", " 'at' "),
        style("EEEE, MMMM d, y", "h:mm:ss a zzzz", " 'at' "),
    ],
};

const GERMAN_MONTHS: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];

static GERMAN: Locale = Locale {
    tags: &["de", "de-DE"],
    months: GERMAN_MONTHS,
    short_months: ["Jan.", "Feb.", "März", "Apr.", "Mai", "Juni", "Juli", "Aug.", "Sept.", "Okt.", "Nov.", "Dez."],
    months_alone: GERMAN_MONTHS,
    days: ["Sonntag", "Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag"],
    short_days: ["So.", "Mo.", "Di.", "Mi.", "Do.", "Fr.", "Sa."],
    halves: ["AM", "PM"],
    styles: [
        style("dd.MM.yy", "HH:mm", ", "),
        style("dd.MM.y", "HH:mm:ss", ", "),
        style("d. MMMM y", "HH:mm:ss z", " 'um' "),
        style("EEEE, d. MMMM y", "HH:mm:ss zzzz", " 'um' "),
    ],
};

static POLISH: Locale = Locale {
    tags: &["pl", "pl-PL"],
    months: [
        "stycznia",
        "lutego",
        "marca",
        "kwietnia",
        "maja",
        "czerwca",
        "lipca",
        "sierpnia",
        "września",
        "października",
        "listopada",
        "grudnia",
    ],
    short_months: ["sty", "lut", "mar", "kwi", "maj", "cze", "lip", "sie", "wrz", "paź", "lis", "gru"],
    months_alone: [
        "styczeń",
        "luty",
        "marzec",
        "kwiecień",
        "maj",
        "czerwiec",
        "lipiec",
        "sierpień",
        "wrzesień",
        "październik",
        "listopad",
        "grudzień",
    ],
    days: ["niedziela", "poniedziałek", "wtorek", "środa", "czwartek", "piątek", "sobota"],
    short_days: ["niedz.", "pon.", "wt.", "śr.", "czw.", "pt.", "sob."],
    halves: ["AM", "PM"],
    styles: [
        style("dd.MM.y", "HH:mm", ", "),
        style("d MMM y", "HH:mm:ss", ", "),
        style("d MMMM y", "HH:mm:ss z", " "),
        style("EEEE, d MMMM y", "HH:mm:ss zzzz", " "),
    ],
};

const SWEDISH_MONTHS: [&str; 12] = [
    "januari",
    "februari",
    "mars",
    "april",
    "maj",
    "juni",
    "juli",
    "augusti",
    "september",
    "oktober",
    "november",
    "december",
];

static SWEDISH: Locale = Locale {
    tags: &["sv", "sv-SE"],
    months: SWEDISH_MONTHS,
    short_months: ["jan.", "feb.", "mars", "apr.", "maj", "juni", "juli", "aug.", "sep.", "okt.", "nov.", "dec."],
    months_alone: SWEDISH_MONTHS,
    days: ["söndag", "måndag", "tisdag", "onsdag", "torsdag", "fredag", "lördag"],
    short_days: ["sön", "mån", "tis", "ons", "tors", "fre", "lör"],
    halves: ["fm", "em"],
    styles: [
        style("y-MM-dd", "HH:mm", " "),
        style("d MMM y", "HH:mm:ss", " "),
        style("d MMMM y", "HH:mm:ss z", " 'kl'. "),
        style("EEEE d MMMM y", "'kl'. HH:mm:ss zzzz", " "),
    ],
};
