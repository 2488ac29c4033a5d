//! Progress of whatever takes longer than two seconds: a spinner on a terminal, plain lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a step stays silent.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a step says that it is still there, where there is no terminal.
const REMINDER: Duration = Duration::from_secs(15);

/// The steps of all threads, each with a line of its own, on standard error.
static STEPS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// One step of the work, on standard error. It is shown from two seconds after its start until it is dropped.
#[derive(Debug)]
pub struct Step {
    bar: Option<ProgressBar>,
    // Dropping the sender ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Step {
    /// Starts a step that is called `label`, such as `building the hypervisor`.
    pub fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            ProgressBar::hidden()
                .with_message(label.clone())
                .with_style(style.unwrap_or(ProgressStyle::default_spinner()))
        });
        let (stop, stopped) = channel::<()>();
        let thread_bar = bar.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let started = Instant::now();
            let mut wait = PATIENCE;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if let Some(bar) = &thread_bar {
                    if bar.is_hidden() {
                        STEPS.add(bar.clone());
                    }
                    bar.tick();
                    wait = Duration::from_millis(120);
                } else {
                    let seconds = started.elapsed().as_secs();
                    // Nobody is left to tell where standard error is closed.
                    let _ = writeln!(std::io::stderr(), "partita: {label} ({seconds} s)");
                    wait = REMINDER;
                }
            }
        });
        // Without a thread there is no progress to see, but the work goes on.
        Self { bar, stop: Some(stop), thread: thread.ok() }
    }

    /// Prints a line on standard output, above the spinner.
    pub fn println(&self, line: &str) {
        let print = || {
            let mut out = std::io::stdout().lock();
            // A reader that went away, as `head` does, must not end the run.
            let _ = writeln!(out, "{line}");
            let _ = out.flush();
        };
        match &self.bar {
            Some(_) => STEPS.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            STEPS.remove(bar);
        }
    }
}
