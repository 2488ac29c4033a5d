//! The long form of tests: `PARTITA_LONG=1`.

/// Whether it is asked for.
pub(crate) fn is_long() -> bool {
    std::env::var("PARTITA_LONG").is_ok_and(|value| value == "1")
}

/// Says why a test did nothing.
pub(crate) fn skipped(why: &str) {
    println!("skipped: {why}; PARTITA_LONG=1 runs it");
}
