//! A fault of the hypervisor itself.

use partita_abi::report::HypervisorExit;
use partita_x86_bare::exceptions::ExceptionFrame;

use crate::arch::stop_serving;
use crate::console;
use crate::cpu::{end_run, percpu, rdtsc};

/// A fault of the hypervisor is fatal: to the run, and where nothing ends that, to this pCPU.
#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &ExceptionFrame) -> ! {
    stop_serving();
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    let pcpu = percpu::private().id.0;
    console::print_fatal(format_args!(
        "\npartita: fatal: exception {} (error code {:#x}) on pCPU {pcpu}: rip {:#x} rsp {:#x} rflags {:#x} cr2 {cr2:#x} \
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
