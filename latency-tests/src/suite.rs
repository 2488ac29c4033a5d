//! All boots, and what they come to.

use crate::boot::{Boot, Place, rows_of};
use crate::extent::Extent;
use crate::figures::{BenchFile, derived};
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
    /// A million periods of the row that counts them.
    pub is_long: bool,
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
        // A system file's own paths count from where that is.
        let dir = std::path::absolute(dir).with_context(|| format!("cannot tell where {} is", dir.display()))?;
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
    let figures = prepare_and_boot(options, Boot::all_on(options.machine))?;
    BenchFile::new(options.machine, &rows_of(options.machine), of(&figures, Place::Bare), of(&figures, Place::Partita))
        .map_err(|error| anyhow::Error::from(error).into())
}

/// The same with some of the boots, and the rows that they measure.
///
/// # Errors
/// As [`run`].
pub fn run_some(options: &SuiteOptions, boots: impl Iterator<Item = Boot> + Send) -> Result<BenchFile, SuiteError> {
    let figures = prepare_and_boot(options, boots)?;
    Ok(BenchFile::of_some(options.machine, of(&figures, Place::Bare), of(&figures, Place::Partita)))
}

type AllFigures = HashMap<(Place, Row), Figures>;

/// The figures in a place.
fn of(figures: &AllFigures, place: Place) -> impl Fn(Row) -> Option<Figures> {
    move |row| figures.get(&(place, row)).copied()
}

fn prepare_and_boot(
    options: &SuiteOptions,
    boots: impl Iterator<Item = Boot> + Send,
) -> Result<AllFigures, SuiteError> {
    options.machine.emulator().probe().map_err(anyhow::Error::from)?;
    let dir = RunDir::prepare(&options.out_dir).map_err(anyhow::Error::from)?;
    let mut figures = boot_all(options, &Images::build(dir.path())?, boots)?;
    let derived: Vec<_> = derived(|row| figures.get(&(Place::Partita, row)).copied()).collect();
    figures.extend(derived.into_iter().map(|(row, of_row)| ((Place::Partita, row), of_row)));
    Ok(figures)
}

/// Boots these, `jobs` at a time, up to the first failure.
fn boot_all(
    options: &SuiteOptions,
    images: &Images,
    boots: impl Iterator<Item = Boot> + Send,
) -> Result<AllFigures, SuiteError> {
    let queue = Mutex::new(boots);
    let done: Mutex<Result<AllFigures, SuiteError>> = Mutex::new(Ok(HashMap::new()));
    let work = || {
        loop {
            let failed = done.lock().unwrap_or_else(PoisonError::into_inner).is_err();
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(boot) = next.filter(|_| !failed) else { return };
            let dir = options.out_dir.join(boot.to_string());
            let extent = Extent { samples: options.samples, is_long: options.is_long };
            let trace = boot.run(options.machine, images, extent, &dir);
            let figures = trace.and_then(|trace| boot.figures(&trace, extent, &dir));
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
