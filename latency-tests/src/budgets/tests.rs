//! Tests of budgets.

use super::*;
use crate::Figures;
use crate::figures::tests::file;
use partita_rows::{Group, Row};

#[test]
fn the_repositorys_budgets_are_those_agreed() {
    let budgets = Budgets::of_repository(MachineKind::Qemu).unwrap();
    let max = |name: &str| budgets.max.get(&RowName(name.to_owned())).map(|limit| limit.max);
    for (row, agreed) in [
        ("exit.cpuid", 90),
        ("exit.rdmsr", 85),
        ("exit.hypercall", 75),
        ("exit.io", 90),
        ("ipi.self", 105),
        ("ipi.oneway_spin", 125),
        ("ipi.oneway_hlt", 125),
        ("ipi.roundtrip_hlt", 350),
        ("kick.nmi_to_exit", 50),
        ("smp_call.roundtrip", 250),
        // 100 was the goal: docs/latency.md lists what is left.
        ("smp_call.stolen", 122),
    ] {
        assert!(max(row).is_some_and(|max| max <= agreed), "{row}: {:?}, agreed were {agreed}", max(row));
    }
    let broadcast = &budgets.ratio[&RowName("smp_call.broadcast_3".to_owned())];
    assert!(broadcast.of.0 == "smp_call.roundtrip" && broadcast.max.0.0 <= 2800);
    // A guest that only computes has its pCPU to itself.
    assert_eq!((max("quiet.gaps"), max("housekeeping.stolen_per_s")), (Some(0), Some(0)));
    let mut timers = Row::ALL.iter().filter(|row| row.group() == Group::Timer);
    assert!(timers.all(|row| budgets.bare.equal.contains(&RowName(row.name().to_owned()))));
}

#[test]
fn the_budgets_in_bochs_are_those_agreed() {
    let budgets = Budgets::of_repository(MachineKind::BOCHS_VMX).unwrap();
    let name = |name: &str| RowName(name.to_owned());
    // No more than 1.3 times what SVM takes in QEMU, and rounded to Bochs' fives.
    for (row, agreed) in
        [("exit.cpuid", 115), ("exit.rdmsr", 110), ("exit.hypercall", 95), ("exit.io", 115), ("ipi.self", 135)]
    {
        assert!(budgets.max[&name(row)].max <= agreed, "{row}");
    }
    assert!(budgets.median[&name("kick.nmi_to_exit")].max <= 50);
    assert!(budgets.ratio[&name("smp_call.broadcast_3")].max.0.0 <= 1600);
    assert!(Budgets::of_repository(MachineKind::BOCHS_SVM).is_ok());
    assert!(Row::ALL.iter().filter(|row| row.group().is_beside()).all(|row| budgets.max[&name(row.name())].max <= 5));
    let budget = budgets.median[&name("kick.nmi_to_exit")].max;
    let slow = file(10, budget + 1);
    let words: Vec<String> = budgets.check(&slow).iter().map(ToString::to_string).collect();
    let expected = format!("kick.nmi_to_exit: the median is {} ticks, the budget is {budget}", budget + 1);
    assert!(words.contains(&expected), "{words:?}");
}

#[test]
fn a_row_above_its_budget_is_named_with_value_and_budget() {
    let budgets = Budgets::parse("[max]\n\"exit.cpuid\" = 160\n[bare]\nequal = [\"timer.oneshot_1ms_hlt\"]").unwrap();
    assert_eq!(budgets.check(&file(160, 160)), []);
    let texts: Vec<String> = budgets.check(&file(10, 161)).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "exit.cpuid: a sample took 161 ticks, the budget is 160",
            "timer.oneshot_1ms_hlt: min, median, p99, max are [161, 161, 161, 161] ticks, the budget is \
             [10, 10, 10, 10], as on the bare machine",
        ]
    );
}

#[test]
fn a_ratio_of_medians_is_checked_exactly() {
    let budgets =
        Budgets::parse("[ratio]\n\"smp_call.broadcast_3\" = { of = \"smp_call.roundtrip\", max = 2.9 }").unwrap();
    let check = |broadcast: [u64; 3], single: u64| {
        let of = |row| Figures::of(&mut if row == Row::SmpCallBroadcast3 { broadcast } else { [single; 3] });
        let file = BenchFile::new(MachineKind::Qemu, Row::ALL, of, of).unwrap();
        budgets.check(&file).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // Only the median counts.
    assert_eq!(check([1160, 1160, 9999], 400), [""; 0]);
    assert_eq!(
        check([1, 1161, 1161], 400),
        ["smp_call.broadcast_3: the median is 1161 ticks, 2.902 times the 400 of smp_call.roundtrip, the budget is \
          2.900 times"]
    );
    assert_eq!(check([1; 3], 0).len(), 1);
}

#[test]
fn faster_than_bare_is_not_equal_to_bare() {
    let budgets = Budgets::parse("[bare]\nequal = [\"timer.oneshot_1ms_hlt\"]").unwrap();
    assert_eq!(budgets.check(&file(11, 10)).len(), 1);
    let late = |count, max| {
        let mut file = file(16, 16);
        let periodic = file.rows.iter_mut().find(|row| row.name == "timer.periodic_200us").unwrap();
        (periodic.partita.count, periodic.partita.max) = (count, max);
        Budgets::parse("[bare]\nequal = [\"timer.periodic_200us\"]").unwrap().check(&file).len()
    };
    assert_eq!((late(1_000_000, 32), late(1_000_000, 33), late(2000, 17)), (0, 1, 1), "a long run may overshoot");
    let unmeasured = Budgets::parse("[bare]\nequal = [\"exit.hypercall\"]").unwrap();
    assert!(unmeasured.check(&file(1, 1))[0].to_string().contains("there are none"));
}

#[test]
fn malformed_budgets_are_refused() {
    for (text, expected) in [
        ("[max]\n\"exit.cpu\" = 1", "no row \"exit.cpu\"; there are exit.cpuid,"),
        ("[max]\n\"exit.cpuid\" = -1", "write a number from 0 on"),
        ("[max]\n\"exit.cpuid\" = 1.5", "1.5 is no number of ticks"),
        ("[max]\n\"exit.cpuid\" = { max = 1, reason = \" \" }", "the reason is empty"),
        ("[max]\n\"exit.cpuid\" = { reason = \"so\" }", "missing field `max`"),
        ("[max]\n\"exit.cpuid\" = { max = { max = 1 } }", "a table is no number; write a number of ticks"),
        ("[against.qemu-svm]\n\"exit.cpuid\" = 0", "0 is no ratio"),
        ("[max]\n\"exit.cpuid\" = \"1\"", "invalid type"),
        ("[bare]\nequal = [\"\"]", "no row \"\""),
        ("[maximum]", "unknown field"),
        ("[ratio]\n\"exit.cpuid\" = 2", "invalid type"),
        ("[ratio]\n\"exit.cpuid\" = { of = \"exit\", max = 2.0 }", "no row \"exit\""),
        ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = 0.0 }", "0 is no ratio; write a number above 0"),
        ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = 2.9001 }", "2.9001 is no ratio"),
        ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\", max = nan }", "NaN is no ratio"),
        ("[ratio]\n\"exit.cpuid\" = { of = \"exit.io\" }", "missing field `max`"),
    ] {
        let error = Budgets::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_budget_with_a_reason_is_a_budget() {
    let budgets = Budgets::parse("[max]\n\"exit.cpuid\" = { max = 160, reason = \"the erratum\" }").unwrap();
    assert_eq!((budgets.check(&file(1, 160)).len(), budgets.check(&file(1, 161)).len()), (0, 1));
}

#[test]
fn machines_are_compared_row_by_row() {
    let budgets = Budgets::parse("[against.bochs-svm]\n\"exit.cpuid\" = 1.3\n\"ipi.self\" = 2").unwrap();
    let of = |machine: MachineKind, ticks| BenchFile { machine: machine.result_name(), ..file(1, ticks) };
    let (vmx, others) = (of(MachineKind::BOCHS_VMX, 131), [of(MachineKind::Qemu, 1), of(MachineKind::BOCHS_SVM, 100)]);
    let words: Vec<String> = budgets.check_against(&vmx, &others).iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        ["exit.cpuid: the median is 131 ticks, 1.310 times the 100 on bochs-svm, the budget is 1.300 times"]
    );
    assert_eq!(budgets.check_against(&of(MachineKind::BOCHS_VMX, 130), &others), []);
    assert_eq!(budgets.check_against(&vmx, &others[..1]), [], "without that machine's figures there is nothing to say");
}

#[test]
fn a_budget_that_is_too_high_is_named() {
    let budgets = Budgets::parse("[max]\n\"exit.cpuid\" = 102\n[median]\n\"exit.io\" = 101").unwrap();
    let words = |machine, ticks| {
        let loose = budgets.loose(machine, &file(1, ticks));
        loose.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        words(MachineKind::Qemu, 100),
        ["exit.cpuid: the max is 100 ticks, the budget of 102 can go down to 100"]
    );
    assert_eq!(words(MachineKind::BOCHS_VMX, 97), [""; 0]);
    assert_eq!(words(MachineKind::BOCHS_VMX, 95).len(), 2);
    let by_threads = BenchFile { clock: ClockName::Tsc, ..file(1, 1) };
    assert_eq!(budgets.loose(MachineKind::Qemu, &by_threads), []);
}

#[test]
fn nanoseconds_have_no_budget_in_ticks() {
    let budgets = Budgets::parse("[max]\n\"exit.cpuid\" = 1").unwrap();
    assert_eq!(budgets.check(&file(1, 9000).in_nanoseconds(1_000_000)), []);
    // But nothing is nothing, and that is what there is to be of the hypervisor on hardware.
    let names = |ticks| {
        let excesses =
            Budgets::of_repository(MachineKind::Kvm).unwrap().check(&file(1, ticks).in_nanoseconds(1_000_000));
        excesses.iter().map(|excess| excess.row().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names(0), names(9000)), (vec![], vec!["housekeeping.stolen_per_s".into(), "quiet.gaps".into()]));
    assert_eq!(Budgets::path(MachineKind::Kvm).unwrap(), None);
}

#[test]
fn raising_a_budget_needs_a_reason() {
    let parse = |text: &str| Budgets::parse(text).unwrap();
    let start = parse(
        "[max]\n\"exit.cpuid\" = 90\n[ratio]\n\"exit.io\" = { of = \"exit.cpuid\", max = 1.2 }\n\
         [against.bochs-svm]\n\"ipi.self\" = 1.3\n[bare]\nequal = [\"timer.periodic_200us\"]",
    );
    let mut lowest = Lowest::default();
    assert_eq!(lowest.check(MachineKind::Qemu, &start).len(), 4, "new ones have to go on record");
    lowest.record(MachineKind::Qemu, &start);
    assert_eq!(lowest.check(MachineKind::Qemu, &start), [""; 0]);
    assert_eq!(Lowest::parse(&lowest.text().unwrap()).unwrap(), lowest);
    let check = |text: &str| lowest.check(MachineKind::Qemu, &parse(text)).join("\n");
    let rest = "[ratio]\n\"exit.io\" = { of = \"exit.cpuid\", max = 1.2 }\n[against.bochs-svm]\n\"ipi.self\" = 1.3\n\
                [bare]\nequal = [\"timer.periodic_200us\"]";
    let raised = check(&format!("[max]\n\"exit.cpuid\" = 91\n{rest}"));
    assert!(raised.contains("budgets.toml: [max] \"exit.cpuid\" is 91, but was 90 once"), "{raised}");
    assert_eq!(check(&format!("[max]\n\"exit.cpuid\" = {{ max = 91, reason = \"an erratum\" }}\n{rest}")), "");
    let lowered = check(&format!("[max]\n\"exit.cpuid\" = 89\n{rest}"));
    assert!(lowered.contains("went down from 90 to 89; record it"), "{lowered}");
    let gone = check("[max]\n\"exit.cpuid\" = 90");
    assert!(
        gone.contains("[ratio] \"exit.io\" is gone") && gone.contains("[against.bochs-svm] \"ipi.self\""),
        "{gone}"
    );
    // A number is looser than to be equal to bare.
    let looser = check(
        &format!("[max]\n\"exit.cpuid\" = 90\n\"timer.periodic_200us\" = 99\n{rest}").replace("[bare]\nequal", "#"),
    );
    assert!(looser.contains("[bare] \"timer.periodic_200us\" is gone"), "{looser}");
}

#[test]
fn the_repositorys_budgets_only_went_down() {
    let text = std::fs::read_to_string(Lowest::path().unwrap()).unwrap();
    let lowest = Lowest::parse(&text).unwrap();
    assert_eq!(lowest.text().unwrap(), text, "the form is that of `cargo partita bench --tighten`");
    for machine in [MachineKind::Qemu, MachineKind::BOCHS_VMX, MachineKind::BOCHS_SVM] {
        assert_eq!(lowest.check(machine, &Budgets::of_repository(machine).unwrap()), [""; 0]);
    }
}
