//! A dialogue, held with the guest at one console.

use super::input_pipe::InputPipe;
use super::log_tail::LogTail;
use crate::dialogue::{Action, Dialogue, Step};
use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes of the log that are looked at in one go.
const LOOK_MAX: usize = 1 << 20;

/// A step of a dialogue that was not done before the machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unspoken {
    /// Whose console it is.
    pub console: String,
    /// The file of the dialogue, if it is from one.
    pub file: Option<PathBuf>,
    /// The step.
    pub step: Step,
    /// Steps that were done.
    pub done: usize,
    /// How many there are.
    pub of: usize,
}

impl fmt::Display for Unspoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { console, file, step: Step { line, text, action }, done, of } = self;
        let place = file.as_ref().map(|file| format!("{}:{line}, ", file.display())).unwrap_or_default();
        let did_not = match action {
            Action::Expect(_) => "did not print",
            Action::Send(_) => "did not take",
        };
        write!(
            f,
            "the console of {console} {did_not} what the dialogue says ({place}step {} of {of}): {text}",
            done + 1
        )
    }
}

/// Goes through a dialogue.
#[derive(Debug)]
pub(super) struct DialogueFeeder {
    console: String,
    dialogue: Dialogue,
    /// Steps that are done.
    done: usize,
    /// The step to be done is a text that was typed already, and is on its way to the guest.
    is_typed: bool,
    log: LogTail,
    /// What was printed since the last match, as far as it can be a part of the next.
    unmatched: Vec<u8>,
}

impl DialogueFeeder {
    /// A dialogue at the console called `console`, whose log is at `log`.
    pub(super) fn new(console: &str, dialogue: &Dialogue, log: &Path) -> Self {
        Self {
            console: console.to_owned(),
            dialogue: dialogue.clone(),
            done: 0,
            is_typed: false,
            log: LogTail::new(log),
            unmatched: Vec::new(),
        }
    }

    /// Goes as far as it can.
    pub(super) fn poll(&mut self, pipe: &mut InputPipe) {
        self.go_on(pipe, true);
    }

    /// The first step that was not done. For when the emulator has ended: nothing is typed any more.
    pub(super) fn finish(mut self, pipe: &mut InputPipe) -> Option<Unspoken> {
        self.go_on(pipe, false);
        let Self { console, dialogue: Dialogue { file, steps }, done, .. } = self;
        let (of, step) = (steps.len(), steps.into_iter().nth(done)?);
        Some(Unspoken { console, file, step, done, of })
    }

    fn go_on(&mut self, pipe: &mut InputPipe, is_running: bool) {
        while let Some(step) = self.dialogue.steps.get(self.done) {
            let is_done = match &step.action {
                // A guest that floods its console is not waited for.
                Action::Expect(text) => {
                    look(&mut self.log, &mut self.unmatched, text, if is_running { 1 } else { usize::MAX })
                }
                Action::Send(bytes) => {
                    if is_running && !self.is_typed {
                        pipe.push(bytes);
                        self.is_typed = true;
                    }
                    // Else what is typed next could come before what the guest does with this.
                    self.is_typed && pipe.is_taken()
                }
            };
            if !is_done {
                break;
            }
            self.done += 1;
            self.is_typed = false;
        }
    }
}

/// Looks for `text` in what was not matched yet, and in so many pieces of what is new in the log.
fn look(log: &mut LogTail, unmatched: &mut Vec<u8>, text: &[u8], pieces: usize) -> bool {
    for _ in 0..pieces {
        if take_match(unmatched, text) {
            return true;
        }
        let bytes = log.read(LOOK_MAX);
        if bytes.is_empty() {
            return false;
        }
        unmatched.extend(bytes);
    }
    take_match(unmatched, text)
}

/// Where `text` begins in `bytes`.
fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len().max(1)).position(|window| window == text)
}

/// Whether `text` is in `bytes`. If so, they are taken out up to its end, else as far as they cannot be a part of it.
fn take_match(bytes: &mut Vec<u8>, text: &[u8]) -> bool {
    let found = find(bytes, text);
    let end = match found {
        Some(start) => start + text.len(),
        None => (bytes.len() + 1).saturating_sub(text.len()),
    };
    bytes.drain(..end.min(bytes.len()));
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read, Write};

    struct Setup {
        dir: tempfile::TempDir,
        log: File,
        pipe: InputPipe,
        feeder: DialogueFeeder,
    }

    fn setup(dialogue: &Dialogue) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("rt0.log");
        let pipe = InputPipe::create(&dir.path().join("rt0.in")).unwrap();
        let feeder = DialogueFeeder::new("rt0", dialogue, &log);
        Setup { log: File::create(log).unwrap(), dir, pipe, feeder }
    }

    impl Setup {
        fn print(&mut self, text: &str) {
            self.log.write_all(text.as_bytes()).unwrap();
            self.feeder.poll(&mut self.pipe);
        }

        /// What was typed, taken as a guest would.
        fn typed(&mut self) -> String {
            if self.pipe.is_taken() {
                return String::new();
            }
            let mut bytes = vec![0; 1000];
            let count = File::open(self.dir.path().join("rt0.in")).unwrap().read(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        }
    }

    fn login() -> Dialogue {
        Dialogue::new().expect("login:").send("root").expect("# ").send("ls").send("halt").expect("# ")
    }

    #[test]
    fn each_step_waits_for_the_one_before() {
        let mut setup = setup(&login());
        setup.print("boot # log");
        assert_eq!(setup.typed(), "");
        setup.print("in: ");
        assert_eq!(setup.typed(), "root\r");
        // The prompt before the login was matched by nothing and does not count; nor does what was taken too late.
        setup.print("root\r\n");
        assert_eq!(setup.typed(), "");
        setup.print("# ");
        assert_eq!(setup.typed(), "ls\r");
        setup.print("");
        assert_eq!(setup.typed(), "halt\r");
        setup.print("ls\r\nbin\r\n# halt\r\n");
        assert_eq!(setup.feeder.finish(&mut setup.pipe), None);
    }

    #[test]
    fn the_first_step_that_was_not_done_is_named() {
        let unspoken = |printed: &[&str], take: bool| {
            let mut setup = setup(&login());
            for text in printed {
                setup.print(text);
                if take {
                    setup.typed();
                }
            }
            setup.feeder.finish(&mut setup.pipe).unwrap()
        };
        let words = unspoken(&["logi"], true).to_string();
        assert_eq!(words, "the console of rt0 did not print what the dialogue says (step 1 of 6): expect \"login:\"");
        assert_eq!(
            unspoken(&["login:"], false).to_string().split(" what").next(),
            Some("the console of rt0 did not take")
        );
        assert_eq!(unspoken(&["login:"], true).done, 2);
        // The machine ended before the tool saw the prompt: nothing is typed then.
        assert_eq!(unspoken(&["login:", "# ", "", ""], true).done, 5);
        let path = Path::new("d.txt");
        let mut setup = setup(&Dialogue::parse("# x\nexpect a\nexpect b", path).unwrap());
        setup.print("ba");
        let words = setup.feeder.finish(&mut setup.pipe).unwrap().to_string();
        assert!(words.ends_with("(d.txt:3, step 2 of 2): expect b"), "{words}");
    }

    proptest! {
        #[test]
        fn a_text_is_found_however_it_comes(log in "[ab]{0,40}", text in "[ab]{1,6}", cuts in proptest::collection::vec(0usize..40, 3)) {
            let mut unmatched = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(log.len())).chain([0, log.len()]).collect();
            cuts.sort_unstable();
            let mut found = false;
            for pair in cuts.windows(2) {
                unmatched.extend_from_slice(&log.as_bytes()[pair[0]..pair[1]]);
                found = found || take_match(&mut unmatched, text.as_bytes());
            }
            prop_assert_eq!(found, log.contains(&text));
        }
    }
}
