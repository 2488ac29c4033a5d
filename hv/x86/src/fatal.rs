//! A fault of the hypervisor itself.

use partita_abi::report::HypervisorExit;
use partita_x86_bare::exceptions::ExceptionFrame;
use partita_x86_policy::capabilities::Backend;

use crate::arch::stop_serving;
use crate::console;
use crate::cpu::{end_run, percpu, rdtsc};
use crate::memory::paging::{boot_text, vendor_text};

/// A fault of the hypervisor is fatal: to the run, and where nothing ends that, to this pCPU.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    stop_serving();
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    let pcpu = percpu::private().id.0;
    let is_in = |(start, len)| frame.rip.wrapping_sub(start) < len;
    let what = if is_in(boot_text()) {
        ", in code that only boot has"
    } else if is_in(vendor_text(Backend::Svm)) {
        ", in code for SVM"
    } else if is_in(vendor_text(Backend::Vmx)) {
        ", in code for VMX"
    } else {
        ""
    };
    console::print_fatal(format_args!(
        "\npartita: fatal: exception {}{what} (error code {:#x}) on pCPU {pcpu}: rip {:#x} rsp {:#x} rflags {:#x} cr2 {cr2:#x} \
         tsc {}\n",
        frame.vector,
        frame.error_code,
        frame.rip,
        frame.rsp,
        frame.rflags,
        rdtsc(),
    ));
    end_run(HypervisorExit::Fatal)
}
