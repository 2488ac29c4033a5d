//! The ELF file whose instructions a log has.

use super::PathEnd;
use addr2line::Context;
use gimli::{Dwarf, EndianRcSlice, RunTimeEndian, SectionId};
use object::elf::PF_X;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the names of this project's crates begin with. What is inlined from elsewhere, such as a method of an integer, counts
/// for the function of this project that it is in.
const OWN: &str = "partita";

/// Whether a function is this project's: by where its path begins, as the library's generic ones name its types.
fn is_own(name: &str) -> bool {
    let path = name.trim_start_matches(|c| "<&".contains(c));
    path.strip_prefix("mut ").unwrap_or(path).starts_with(OWN)
}
/// VMRUN and HLT.
const ENDS: [(&[u8], PathEnd); 2] = [(&[0x0F, 0x01, 0xD8], PathEnd::Entry), (&[0xF4], PathEnd::Halt)];

/// A file whose instructions cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is no ELF file, or its debug information is malformed.
    #[error("{}: {problem}; build the hypervisor again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

type Reader = EndianRcSlice<RunTimeEndian>;

/// An ELF file, with its functions.
pub struct Program {
    /// Executable segments: address and bytes.
    segments: Vec<(u64, Vec<u8>)>,
    /// Functions of the symbol table: address and name.
    /// By address: the end, and the name.
    symbols: BTreeMap<u64, (u64, String)>,
    context: Context<Reader>,
    /// What was asked for already.
    known: HashMap<u64, Rc<str>>,
}

impl Program {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// It cannot be read, is no ELF file, or its debug information is malformed.
    pub fn load(path: &Path) -> Result<Self, ProgramError> {
        let bytes = read(path)?;
        let form = |problem: String| ProgramError::Form { path: path.to_path_buf(), problem };
        let file = object::File::parse(bytes.as_slice()).map_err(|error| form(error.to_string()))?;
        let segments =
            executable(&file).map(|segment| (segment.address(), segment.data().unwrap_or_default().to_vec()));
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
        let symbols = functions.filter_map(|symbol| {
            Some((symbol.address(), (symbol.address() + symbol.size(), demangled(symbol.name().ok()?))))
        });
        let section = |id: SectionId| -> Result<Reader, object::Error> {
            let data = match file.section_by_name(id.name()) {
                Some(section) => section.uncompressed_data()?.into_owned(),
                None => Vec::new(),
            };
            Ok(EndianRcSlice::new(data.into(), RunTimeEndian::Little))
        };
        let dwarf = Dwarf::load(section).map_err(|error| form(error.to_string()))?;
        let context = Context::from_dwarf(dwarf).map_err(|error| form(error.to_string()))?;
        Ok(Self { segments: segments.collect(), symbols: symbols.collect(), context, known: HashMap::new() })
    }

    /// The function that the instruction at this address is of: if it was inlined, the inlined one. `?` if there is none.
    pub fn function(&mut self, address: u64) -> Rc<str> {
        if let Some(name) = self.known.get(&address) {
            return Rc::clone(name);
        }
        let name: Rc<str> = self.inlined(address).or_else(|| self.symbol(address)).unwrap_or_else(|| "?".into()).into();
        self.known.insert(address, Rc::clone(&name));
        name
    }

    /// The function of the symbol table that this address is in, if it can be executed.
    pub fn symbol(&self, address: u64) -> Option<String> {
        let before = self.symbols.range(..=address).next_back().filter(|_| !self.bytes(address, 1).is_empty());
        before.filter(|(_, (end, _))| address < *end).map(|(_, (_, name))| name.clone())
    }

    /// The innermost function of this project at this address.
    fn inlined(&self, address: u64) -> Option<String> {
        let mut frames = self.context.find_frames(address).skip_all_loads().ok()?;
        while let Some(frame) = frames.next().ok()? {
            let name = frame.function.and_then(|function| Some(demangled(&function.raw_name().ok()?)));
            if let Some(name) = name.filter(|name| is_own(name)) {
                return Some(name);
            }
        }
        None
    }

    /// The bytes from this address on, at most `count`; none outside of what can be executed.
    pub fn bytes(&self, address: u64, count: usize) -> &[u8] {
        let of_segment = |(start, bytes): &'_ (u64, Vec<u8>)| -> Option<(usize, usize)> {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            (offset < bytes.len()).then(|| (offset, bytes.len().min(offset.saturating_add(count))))
        };
        let mut found = self.segments.iter().filter_map(|segment| Some((segment, of_segment(segment)?)));
        found.next().and_then(|((_, bytes), (from, to))| bytes.get(from..to)).unwrap_or_default()
    }

    /// Whether the instruction at this address ends a path.
    pub fn end_at(&self, address: u64) -> Option<PathEnd> {
        ENDS.into_iter().find(|(code, _)| self.bytes(address, code.len()) == *code).map(|(_, end)| end)
    }
}

/// The addresses of an ELF file that concern a log of instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What can be executed: from the first address up to the second, which is not in it.
    pub text: (u64, u64),
    /// Where the bytes of VMRUN are: where the log begins.
    pub entries: Vec<u64>,
}

impl Logged {
    /// Those of an ELF file.
    ///
    /// # Errors
    /// It cannot be read, or is no ELF file that enters a guest by VMRUN.
    pub fn of(path: &Path) -> Result<Self, ProgramError> {
        let bytes = read(path)?;
        let form = |problem: &str| ProgramError::Form { path: path.to_path_buf(), problem: problem.to_owned() };
        let file = object::File::parse(bytes.as_slice()).map_err(|error| form(&error.to_string()))?;
        let start = executable(&file).map(|segment| segment.address()).min();
        let end = executable(&file).map(|segment| segment.address().saturating_add(segment.size())).max();
        let text = start.zip(end).ok_or_else(|| form("it has no segment that can be executed"))?;
        let [(vmrun, _), _] = ENDS;
        let mut entries = Vec::new();
        for segment in executable(&file) {
            let data = segment.data().unwrap_or_default();
            let found = data.windows(vmrun.len()).enumerate().filter(|(_, window)| *window == vmrun);
            entries.extend(found.map(|(offset, _)| segment.address().saturating_add(offset as u64)));
        }
        if entries.is_empty() { Err(form("it has no VMRUN")) } else { Ok(Self { text, entries }) }
    }
}

fn executable<'f>(file: &'f object::File<'f>) -> impl Iterator<Item = object::Segment<'f, 'f>> {
    let is_executable = |segment: &object::Segment<'_, '_>| match segment.flags() {
        SegmentFlags::Elf { p_flags, .. } => p_flags.0 & PF_X.0 != 0,
        _ => false,
    };
    file.segments().filter(is_executable)
}

fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    std::fs::read(path).map_err(|cause| ProgramError::Read { path: path.to_path_buf(), cause })
}

/// A name as in the source, without the compiler's hash.
fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This very test program is an ELF file with debug information.
    #[test]
    fn functions_are_told_by_their_addresses() {
        let path = std::env::current_exe().unwrap();
        let mut program = Program::load(&path).unwrap();
        let end = program.segments.iter().map(|(start, bytes)| start + bytes.len() as u64).max().unwrap();
        let (&address, _) = program
            .symbols
            .iter()
            .find(|(_, (_, name))| name.ends_with("functions_are_told_by_their_addresses"))
            .expect("the test is a function");
        assert!(program.function(address).contains("functions_are_told_by_their_addresses"));
        assert_eq!(program.bytes(address, 3).len(), 3);
        assert!(program.bytes(end, 1).is_empty() && program.bytes(u64::MAX, 1).is_empty());
        assert_eq!(&*program.function(1), "?");
    }

    #[test]
    fn a_file_that_is_no_program_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello").unwrap();
        let error = Logged::of(file.path()).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()) && error.contains("build"), "{error}");
        assert!(matches!(Program::load(Path::new("no/such")), Err(ProgramError::Read { .. })));
    }
}
