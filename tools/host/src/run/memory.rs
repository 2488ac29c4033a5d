//! How much RAM the machine of a system has.

use crate::system_file::{Place, SystemFile, SystemFileError, human};

/// RAM of the machine beyond what partitions and bundle take, where the system file does not say how much.
const MEMORY_SPARE: u64 = 128 << 20;
/// Granule of that RAM.
const MEMORY_STEP: u64 = 64 << 20;

/// RAM of the machine: what the system file says if that is enough, else enough for the system.
pub(crate) fn machine_memory(system: &SystemFile, bundle: u64) -> Result<u64, SystemFileError> {
    let partitions = || system.config.partitions.iter();
    let sum: u64 = partitions().map(|partition| partition.memory_bytes).sum();
    let fixed_ends = partitions().filter_map(|partition| partition.memory_at?.checked_add(partition.memory_bytes));
    let highest = fixed_ends.max().unwrap_or(0);
    let needed = (sum + bundle).max(highest).saturating_add(MEMORY_SPARE).next_multiple_of(MEMORY_STEP);
    match system.machine.memory {
        Some(memory) if memory < sum + bundle || memory < highest => {
            let cure = format!("raise it, to {} for instance, or leave it out", human(needed));
            let message = format!("{} is too little for the partitions and the boot bundle; {cure}", human(memory));
            Err(system.problems([(Place::MachineMemory, message)]))
        }
        Some(memory) => Ok(memory),
        None => Ok(needed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn system(machine: &str, memory_at: &str) -> SystemFile {
        let text = format!(
            "[system]\nname = 's'\n{machine}\n[[partition]]\nname = 'p'\npcpus = [1]\nmemory = '64 MiB'\n{memory_at}\n\
             expect = 'run'\nimage = {{ kind = 'elf', path = 'p' }}\n"
        );
        SystemFile::parse(&text, Path::new("s.toml")).unwrap()
    }

    #[test]
    fn the_machine_has_enough_memory_by_default() {
        assert_eq!(machine_memory(&system("", ""), 1 << 20).unwrap(), 256 << 20);
        let high = system("", "memory_at = 0x40000000");
        assert_eq!(machine_memory(&high, 1 << 20).unwrap(), (1024 + 64 + 128) << 20);
    }

    #[test]
    fn too_little_memory_is_refused_with_its_place() {
        let small = system("[machine]\nmemory = '64 MiB'", "");
        let error = machine_memory(&small, 1).unwrap_err().to_string();
        assert!(error.starts_with("s.toml:4:10: machine.memory: 64 MiB is too little"), "{error}");
        assert!(error.contains("256 MiB"), "{error}");
        let exact = system("[machine]\nmemory = '128 MiB'", "");
        assert_eq!(machine_memory(&exact, 1).unwrap(), 128 << 20);
    }
}
