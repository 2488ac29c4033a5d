//! CPUs whose VMX is not enough, or is switched off: the hypervisor refuses to start, and names what is missing. Bochs has
//! some of them; for the others its debugger changes what the hypervisor reads of a model-specific register.

use crate::debugged::{Debugged, Debugger, Hypervisor, MODEL};
use crate::system::load;
use partita_abi::report::HypervisorExit;
use partita_x86_policy::vmx::capability::msr;

/// A CPU whose features are given one by one; `vmx=` follows.
const GENERIC: (&str, &str) = (
    "bx_generic",
    "cpuid: level=6, family=6, model=26, stepping=5, vendor_string=\"GenuineIntel\", brand_string=\"a CPU for a test\", \
     mmx=1, sep=1, simd=avx2, apic=x2apic, aes=1, movbe=1, xsave=1, xsaveopt=1, avx_f16c=1, avx_fma=1, bmi=2, x86_64=1, \
     1g_pages=1, fsgsbase=1, smep=1, smap=1, mwait=0, svm=0, vmx=",
);

/// Boots a machine; the hypervisor refuses with these words.
fn assert_refused(model: &str, config: &str, play: impl FnOnce(&mut Debugger, &Hypervisor) + Send, words: &[&str]) {
    let system = load("kicks.toml", &[]);
    let ran = Debugged { model, config, ..Debugged::new(&system) }.run(play);
    let console = &ran.console;
    let said = console.lines().find(|line| line.starts_with("partita: refused to start: "));
    println!("{said:?}");
    for word in words {
        assert!(said.is_some_and(|said| said.contains(word)), "{word:?}: {console}");
    }
    assert_eq!(console.lines().last(), Some("partita: end: refused"), "{console}");
    assert!(ran.ended_by(HypervisorExit::Refused), "{console}");
}

/// Has a pCPU read another value from a model-specific register, once. Bochs' debugger misses a breakpoint on the first
/// instruction of a pCPU's turn: so there are two.
fn change_read(debugger: &mut Debugger, hypervisor: &Hypervisor, pcpu: u16, msr: u32, value: u64) {
    /// Of the instruction before the RDMSR, and of that.
    const MOV_LEN: u64 = 2;
    const RDMSR_LEN: u64 = 2;
    let at = hypervisor.function("try_read_msr_at");
    debugger.break_at(at - MOV_LEN);
    debugger.break_at(at);
    while {
        debugger.go_until(pcpu);
        debugger.register("rdi") != u64::from(msr)
    } {}
    for (register, value) in [("rax", value & 0xFFFF_FFFF), ("rdx", value >> 32), ("rip", at + RDMSR_LEN)] {
        debugger.set_register(register, value);
    }
}

/// The same where pCPUs read another value from a model-specific register.
fn assert_refused_with(msr: u32, value: u64, pcpu: u16, words: &[&str]) {
    let play = |debugger: &mut Debugger, hypervisor: &Hypervisor| change_read(debugger, hypervisor, pcpu, msr, value);
    assert_refused(MODEL, "", play, words);
}

#[test]
#[ignore = "boots an emulator"]
fn vmx_that_is_locked_off_is_told() {
    /// Locked, without the bit for VMX.
    const LOCKED_OFF: u64 = 1;
    let words = ["VMX is switched off and locked (MSR 0x3a is 0x1, bit 2 is clear)", "in the firmware's set-up"];
    assert_refused_with(msr::FEATURE_CONTROL, LOCKED_OFF, 0, &words);
    let words = [&["pCPU 1 (x2APIC ID 1) is not as the boot CPU"], &words[..]].concat();
    assert_refused_with(msr::FEATURE_CONTROL, LOCKED_OFF, 1, &words);
}

#[test]
#[ignore = "boots an emulator"]
fn a_cpu_that_lacks_something_of_vmx_is_refused() {
    let untouched = |_: &mut Debugger, _: &Hypervisor| {};
    let (generic, features) = GENERIC;
    assert_refused(generic, &format!("{features}0\n"), untouched, &["neither SVM", "nor VMX"]);
    assert_refused(
        generic,
        &format!("{features}1\n"),
        untouched,
        &["no \"activate VMX-preemption timer\" (MSR 0x48d bit 38 is clear)"],
    );
    assert_refused("core2_penryn_t9600", "", untouched, &["no x2APIC"]);
    assert_refused_with(msr::PROCBASED2, 0, 0, &["no \"enable EPT\" (MSR 0x48b bit 33 is clear)"]);
}
