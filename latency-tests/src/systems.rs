//! The systems that the suite boots: `latency-tests/systems/*.toml`, with group, samples and images filled in.

use crate::extent::Extent;
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
pub fn cmdline(group: Group, extent: Extent) -> String {
    let spares = if matches!(group, Group::Gap) { SPARE_GAPS } else { 0 };
    let periods = if matches!(group, Group::Timer) { format!(" periods={}", extent.periods()) } else { String::new() };
    format!("group={} samples={}{periods}", group.name(), extent.samples_of(group).saturating_add(spares))
}

/// The neighbour of a group: its payload, command line, and the most pCPUs that it uses.
const fn neighbour(group: Group) -> Option<(&'static str, &'static str, usize)> {
    match group {
        Group::BesideSpin => Some(("pulse", "state=spin_if1", 1)),
        Group::BesideHalt => Some(("metronome", "us=20", 1)),
        Group::BesideExits => Some((PAYLOAD, "group=kick state=exit_storm", 1)),
        Group::BesideNoise => Some(("neighbour", "writes=32 rounds=16", 1)),
        Group::BesideConsole => Some(("neighbour", "console=flood rounds=16", 1)),
        Group::BesideHostile => Some(("hostile", "attack=storm steps=100000000", 2)),
        Group::BesideResets => Some(("hostile", "attack=reset-storm steps=100000000", 2)),
        Group::BesideReboots => Some(("hostile", "attack=reboots", 2)),
        _ => None,
    }
}

/// The system of a group's boot under Partita. `payload` is its ELF file.
///
/// # Errors
/// The system's file cannot be read or is malformed.
pub fn system(group: Group, extent: Extent, payload: &Path) -> anyhow::Result<SystemFile> {
    let name = match group {
        Group::Kick => "kick.toml",
        Group::Gap => "gap.toml",
        Group::Broadcast => "broadcast.toml",
        Group::Quiet => "quiet.toml",
        Group::Restart => "restart.toml",
        Group::Untraced => "untraced.toml",
        Group::Exit | Group::Ipi | Group::Timer => "rows.toml",
        _ => "beside.toml",
    };
    let path = cargo_build::repository()?.join("latency-tests/systems").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = fill(&text, group, extent, payload).with_context(|| path.display().to_string())?;
    Ok(SystemFile::parse(&text, &path)?)
}

/// Whether the hypervisor ends a group's boot after a number of rounds: its payload only sits.
const fn ends_by_rounds(group: Group) -> bool {
    matches!(group, Group::Kick | Group::Broadcast)
}

/// Fills in the text of a system.
fn fill(text: &str, group: Group, extent: Extent, payload: &Path) -> anyhow::Result<String> {
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
    let partitions = system.get_mut("partition").and_then(Value::as_array_mut).context("[[partition]] is missing")?;
    if let Some(neighbour) = neighbour(group) {
        set_neighbour(partitions.get_mut(1).and_then(Value::as_table_mut), neighbour)?;
    }
    // One and the same payload, also where it is a neighbour.
    for partition in partitions.iter_mut().filter_map(Value::as_table_mut) {
        let name = partition.get("image").and_then(|image| image.get("name")?.as_str());
        if name == Some(PAYLOAD) {
            partition.insert("image".to_owned(), image.clone().into());
        }
    }
    let partition =
        partitions.get_mut(0).and_then(Value::as_table_mut).context("the first [[partition]] is missing")?;
    if ends_by_rounds(group) {
        let housekeeping = system.get_mut("housekeeping").and_then(Value::as_table_mut);
        let rounds = i64::from(extent.samples) + i64::from(WARM_UP_ROUNDS);
        housekeeping.context("[housekeeping] is missing")?.insert("smp_call_rounds".to_owned(), rounds.into());
    } else {
        partition.insert("cmdline".to_owned(), cmdline(group, extent).into());
    }
    Ok(toml::to_string(&system)?)
}

/// Fills in the neighbour.
fn set_neighbour(partition: Option<&mut Table>, (payload, cmdline, pcpus): (&str, &str, usize)) -> anyhow::Result<()> {
    let partition = partition.context("the second [[partition]] is missing")?;
    let image = [("kind", "payload"), ("name", payload)].map(|(key, value)| (key.to_owned(), Value::from(value)));
    partition.insert("image".to_owned(), Table::from_iter(image).into());
    partition.insert("cmdline".to_owned(), cmdline.into());
    partition.get_mut("pcpus").and_then(Value::as_array_mut).context("its pcpus are missing")?.truncate(pcpus);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::RESTARTS;
    use partita_core::system::SmpCallMode;
    use partita_host::system_file::ImageSource;

    fn system_of(group: Group) -> SystemFile {
        system(group, 123.into(), Path::new("/p,\"/latency.elf")).unwrap()
    }

    #[test]
    fn each_group_has_a_system() {
        let payload = ImageSource::Elf { path: "/p,\"/latency.elf".into(), boot: None, modules: Vec::new() };
        for &group in Group::ALL {
            let system = system_of(group);
            let partitions = system.config.partitions.as_slice();
            assert_eq!(system.images[0], payload, "{group:?}");
            assert!(!system.is_open_ended());
            assert_eq!(system.config.trace.exits, group != Group::Untraced);
            let pcpus = match group {
                Group::Broadcast => 3,
                Group::Quiet | Group::Restart => 1,
                _ if group.is_beside() => 1,
                _ => 2,
            };
            assert_eq!(partitions[0].pcpus.len(), pcpus);
            let housekeeping = &system.config.housekeeping;
            let is_broadcast = housekeeping.smp_call_mode == SmpCallMode::Broadcast;
            assert_eq!(is_broadcast, group == Group::Broadcast);
            if ends_by_rounds(group) {
                assert_eq!(housekeeping.smp_call_rounds, 123 + WARM_UP_ROUNDS);
                assert!(system.cmdlines[0].starts_with(&format!("group={} state=hlt", group.name())));
            } else {
                // Other rows that are measured in the guest are measured in peace.
                assert_eq!(housekeeping.smp_call_hz > 0, group == Group::Gap);
                assert_eq!(housekeeping.smp_call_rounds, 0);
                let options = match group {
                    Group::Gap => format!("samples={}", 123 + SPARE_GAPS),
                    Group::Timer => "samples=123 periods=123".to_owned(),
                    Group::Restart => format!("samples={RESTARTS}"),
                    _ => "samples=123".to_owned(),
                };
                assert_eq!(system.cmdlines[0], format!("group={} {options}", group.name()));
            }
        }
    }

    #[test]
    fn a_group_beside_a_neighbour_has_it() {
        for &group in Group::ALL {
            let Some((payload, cmdline, pcpus)) = neighbour(group) else {
                assert!(!group.is_beside(), "{group:?}");
                continue;
            };
            let system = system_of(group);
            assert!(group.is_beside() && system.config.partitions.len() == 2);
            assert_eq!((system.cmdlines[1].as_str(), system.config.partitions[1].pcpus.len()), (cmdline, pcpus));
            match &system.images[1] {
                ImageSource::Payload { name, .. } => assert_eq!(name, payload),
                image => assert!(payload == PAYLOAD && *image == system.images[0], "{image:?}"),
            }
        }
    }

    #[test]
    fn a_long_run_has_a_million_periods() {
        let extent = Extent { samples: 5, is_long: true };
        assert_eq!(cmdline(Group::Timer, extent), "group=timer samples=5 periods=1000000");
        assert_eq!(cmdline(Group::Exit, extent), "group=exit samples=5");
    }

    #[test]
    fn a_file_without_the_needed_tables_is_refused() {
        let path = Path::new("p");
        let fill = |text: &str, group| fill(text, group, 1.into(), path);
        assert!(fill("[system]", Group::Ipi).unwrap_err().to_string().contains("[[partition]]"));
        assert!(fill("", Group::Ipi).unwrap_err().to_string().contains("[system]"));
        assert!(fill("[system]\n[[partition]]", Group::Kick).unwrap_err().to_string().contains("[housekeeping]"));
        assert!(
            fill("[system]\n[[partition]]", Group::BesideSpin)
                .unwrap_err()
                .to_string()
                .contains("second [[partition]]")
        );
        assert!(fill("[", Group::Ipi).is_err());
    }
}
