//! All boots, and what they come to.

use crate::boot::{Boot, Place};
use crate::figures::BenchFile;
use crate::systems::PAYLOAD;
use crate::{Figures, SuiteError};
use anyhow::Context;
use partita_host::cargo_build;
use partita_host::emulator::MachineKind;
use partita_host::run_dir::RunDir;
use partita_rows::Row;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How to run the suite.
#[derive(Clone, Debug)]
pub struct SuiteOptions {
    /// The machine.
    pub machine: MachineKind,
    /// Samples of each row.
    pub samples: u32,
    /// Boots at a time. Time passes by instructions, so the figures are the same.
    pub jobs: usize,
    /// Where logs and traces go, those of each boot in a directory of its own.
    pub out_dir: PathBuf,
}

/// What is booted: copies, so that all boots have the same even if something is built meanwhile.
#[derive(Clone, Debug)]
pub struct Images {
    /// The hypervisor's ELF file.
    pub hypervisor: PathBuf,
    /// The payload's ELF file.
    pub payload: PathBuf,
}

impl Images {
    /// Builds both, and copies them to `dir`.
    ///
    /// # Errors
    /// The build failed, or `dir` cannot be written.
    pub fn build(dir: &Path) -> anyhow::Result<Self> {
        let copy = |from: PathBuf, name| {
            let to = dir.join(name);
            std::fs::copy(&from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
                .map(|_| to)
        };
        let hypervisor = copy(cargo_build::hypervisor()?, "hypervisor.elf")?;
        let payload = copy(cargo_build::payload(PAYLOAD)?, "payload.elf")?;
        Ok(Self { hypervisor, payload })
    }
}

/// Builds hypervisor and payload, boots everything, and puts the figures together.
///
/// # Errors
/// A boot could not take place, or failed, or its samples are not all there.
pub fn run(options: &SuiteOptions) -> Result<BenchFile, SuiteError> {
    options.machine.emulator().probe().map_err(anyhow::Error::from)?;
    let dir = RunDir::prepare(&options.out_dir).map_err(anyhow::Error::from)?;
    let images = Images::build(dir.path())?;
    let figures = boot_all(options, &images)?;
    let of = |place| {
        let figures = &figures;
        move |row| figures.get(&(place, row)).copied()
    };
    BenchFile::new(options.machine, of(Place::Bare), of(Place::Partita))
        .map_err(|error| anyhow::Error::from(error).into())
}

type AllFigures = HashMap<(Place, Row), Figures>;

/// Boots everything, `jobs` at a time, up to the first failure.
fn boot_all(options: &SuiteOptions, images: &Images) -> Result<AllFigures, SuiteError> {
    let queue = Mutex::new(Boot::all());
    let done: Mutex<Result<AllFigures, SuiteError>> = Mutex::new(Ok(HashMap::new()));
    let work = || {
        loop {
            let failed = done.lock().unwrap_or_else(PoisonError::into_inner).is_err();
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(boot) = next.filter(|_| !failed) else { return };
            let dir = options.out_dir.join(boot.to_string());
            let trace = boot.run(options.machine, images, options.samples, &dir);
            let figures = trace.and_then(|trace| boot.figures(&trace, options.samples, &dir));
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *done, figures) {
                (Ok(all), Ok(figures)) => all.extend(figures.into_iter().map(|(row, f)| ((boot.place, row), f))),
                (Ok(_), Err(error)) => *done = Err(error),
                // The first failure is the one to tell.
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}
