//! The systems that the suite boots: `latency-tests/systems/*.toml`, with group, samples and images filled in.

use anyhow::Context;
use partita_host::cargo_build;
use partita_host::system_file::SystemFile;
use partita_rows::Group;
use std::path::Path;
use toml::{Table, Value};

/// The payload of the suite.
pub const PAYLOAD: &str = "latency";
/// The vCPU that the rows of the hypervisor are about, by its number in the partition.
pub const TARGET_VCPU: u16 = 0;
/// Rounds of SMP calls before those that count: the payload comes up meanwhile.
pub const WARM_UP_ROUNDS: u32 = 1000;
/// Samples that the payload takes of a gap beyond those that count. The emulator passes the turn to the next pCPU every 100 ms,
/// wherever the one that had it was; a boot measures gaps for less than that, so that at most one call is cut in two.
pub const SPARE_GAPS: u32 = 1;

/// The command line of the payload for the rows that it measures itself.
pub fn cmdline(group: Group, samples: u32) -> String {
    let spares = if matches!(group, Group::Gap) { SPARE_GAPS } else { 0 };
    format!("group={} samples={}", group.name(), samples.saturating_add(spares))
}

/// The system of a group's boot under Partita. `payload` is its ELF file.
///
/// # Errors
/// The system's file cannot be read or is malformed.
pub fn system(group: Group, samples: u32, payload: &Path) -> anyhow::Result<SystemFile> {
    let name = match group {
        Group::Kick => "kick.toml",
        Group::Gap => "gap.toml",
        Group::Broadcast => "broadcast.toml",
        Group::Exit | Group::Ipi | Group::Timer => "rows.toml",
    };
    let path = cargo_build::repository()?.join("latency-tests/systems").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = fill(&text, group, samples, payload).with_context(|| path.display().to_string())?;
    Ok(SystemFile::parse(&text, &path)?)
}

/// Whether the hypervisor ends a group's boot after a number of rounds: its payload only sits.
const fn ends_by_rounds(group: Group) -> bool {
    matches!(group, Group::Kick | Group::Broadcast)
}

/// Fills in the text of a system.
fn fill(text: &str, group: Group, samples: u32, payload: &Path) -> anyhow::Result<String> {
    let mut system: Table = text.parse()?;
    // The progress display tells the boots apart by this.
    let name = Value::from(format!("latency-{}", group.name()));
    system
        .get_mut("system")
        .and_then(Value::as_table_mut)
        .context("[system] is missing")?
        .insert("name".to_owned(), name);
    let payload = payload.to_str().with_context(|| format!("{}: the path is no UTF-8", payload.display()))?;
    let image = Table::from_iter([("kind".to_owned(), Value::from("elf")), ("path".to_owned(), Value::from(payload))]);
    let partition = system
        .get_mut("partition")
        .and_then(|partitions| partitions.get_mut(0)?.as_table_mut())
        .context("the first [[partition]] is missing")?;
    partition.insert("image".to_owned(), image.into());
    if ends_by_rounds(group) {
        let housekeeping = system.get_mut("housekeeping").and_then(Value::as_table_mut);
        let rounds = i64::from(samples) + i64::from(WARM_UP_ROUNDS);
        housekeeping.context("[housekeeping] is missing")?.insert("smp_call_rounds".to_owned(), rounds.into());
    } else {
        partition.insert("cmdline".to_owned(), cmdline(group, samples).into());
    }
    Ok(toml::to_string(&system)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_core::system::SmpCallMode;
    use partita_host::system_file::ImageSource;

    #[test]
    fn each_group_has_a_system() {
        for group in Group::ALL {
            let system = system(group, 123, Path::new("/p,\"/latency.elf")).unwrap();
            let [partition] = system.config.partitions.as_slice() else { panic!("one partition") };
            assert_eq!(partition.pcpus.len(), if group == Group::Broadcast { 3 } else { 2 });
            assert_eq!(
                system.images,
                [ImageSource::Elf { path: "/p,\"/latency.elf".into(), boot: None, modules: Vec::new() }]
            );
            let housekeeping = &system.config.housekeeping;
            assert!(!system.is_open_ended());
            let is_broadcast = housekeeping.smp_call_mode == SmpCallMode::Broadcast;
            assert_eq!(is_broadcast, group == Group::Broadcast);
            if ends_by_rounds(group) {
                assert_eq!(housekeeping.smp_call_rounds, 123 + WARM_UP_ROUNDS);
                assert!(system.cmdlines[0].starts_with(&format!("group={} state=hlt", group.name())));
            } else {
                // Other rows that are measured in the guest are measured in peace.
                assert_eq!(housekeeping.smp_call_hz > 0, group == Group::Gap);
                assert_eq!(housekeeping.smp_call_rounds, 0);
                let taken = if group == Group::Gap { 123 + SPARE_GAPS } else { 123 };
                assert_eq!(system.cmdlines, [format!("group={} samples={taken}", group.name())]);
            }
        }
    }

    #[test]
    fn a_file_without_the_needed_tables_is_refused() {
        let path = Path::new("p");
        assert!(fill("[system]", Group::Ipi, 1, path).unwrap_err().to_string().contains("[[partition]]"));
        assert!(fill("", Group::Ipi, 1, path).unwrap_err().to_string().contains("[system]"));
        assert!(
            fill("[system]\n[[partition]]", Group::Kick, 1, path).unwrap_err().to_string().contains("[housekeeping]")
        );
        assert!(fill("[", Group::Ipi, 1, path).is_err());
    }
}
