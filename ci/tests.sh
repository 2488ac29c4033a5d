# The tests, in the order they run: sourced by ci/test.sh, which has `run`, `beside` and `skip`.

bare=x86_64-unknown-none
bare_crates="-p partita-hv -p partita-x86 -p partita-x86-vcpu -p partita-x86-bare -p partita-rt -p partita-payload-devices -p partita-payload-entries -p partita-payload-guest-tests -p partita-payload-hostile -p partita-payload-latency -p partita-payload-metronome -p partita-payload-neighbour -p partita-payload-pulse"
common_crates="-p partita-abi -p partita-console -p partita-core -p partita-trace"
fuzz_seconds=$([ "$long" -eq 1 ] && echo 30 || echo 5)

loom() { # PACKAGE TEST...
    local package=$1
    shift
    CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" \
        cargo test --quiet --locked --release -p "$package" $(printf -- '--test %s ' "$@")
}

# Miri runs each test some hundred times slower: the ring's tests, and those of the mailbox that do not spin for long. The
# latter leave their machine allocated on purpose, as threads may still be stuck in it.
miri() { # FEWEST-TESTS PACKAGE ARGUMENT...
    local fewest=$1 package=$2 output
    shift 2
    output=$(MIRIFLAGS=-Zmiri-ignore-leaks CARGO_TARGET_DIR=target/miri cargo +nightly miri test --locked -p "$package" "$@" 2>&1) || { echo "$output"; return 1; }
    echo "$output"
    [ "$(grep -c '^test .* ok$' <<< "$output")" -ge "$fewest" ]
}

fuzz() ( # CRATE TARGET
    cd "$1" && cargo +nightly fuzz run "$2" -- -max_total_time="$fuzz_seconds" -verbosity=0
)

# Tests whose emulator has a thread for each pCPU, or whose input comes in the host's time: they have the machine for themselves.
# All others count instructions, and are the same however fast they are.
alone='_by_threads$|^(qemu|iso|linux_bare)::|^partitions::(console|cpu|devices|ends|guests|reboots|timeout|typing)::'
alone+='|^partitions::(restart::one_that|storm::no_call_is_lost_among_eight|kicks::none_is_lost_by_a_guest)'
alone+='|^partitions::hostile::(ring|lives::(the_local_apic|no_end|reboots_amid))'

# Why a test is only in the long form, if so.
only_long() { # FILE::NAME
    case $1 in
        suite::two_runs_with_svm_in_bochs*) echo "two minutes of Bochs" ;;
        exits::in_bochs*) echo "a minute of Bochs" ;;
        linux_rt::in_bochs*) echo "two minutes of Bochs for each of three CPUs" ;;
    esac
}

# The tests of one file that boot an emulator, each by itself, so that each has its time.
emulated() { # PACKAGE FILE
    local package=$1 file=$2 names name why later=()
    names=$(cargo test --quiet --locked -p "$package" --test "$file" -- --ignored --list --format terse 2>/dev/null \
        | sed -n 's/: test$//p')
    [ -n "$names" ] || { run "$file" false; return; }
    for name in $names; do
        why=$(only_long "$file::$name")
        if [ "$long" -ne 1 ] && [ -n "$why" ]; then
            skip "$file::$name" "$why; --long runs it"
        elif [[ $name != *_by_instruction_count && $file::$name =~ $alone ]]; then
            later+=("$name")
        else
            beside "$file::$name" emulated_one "$package" "$file" "$name"
        fi
    done
    for name in "${later[@]}"; do
        run "$file::$name" emulated_one "$package" "$file" "$name"
    done
}

emulated_one() { # PACKAGE FILE NAME
    cargo test --quiet --locked -p "$1" --test "$2" -- --exact --include-ignored "$3"
}

# Those of a guest's tests that run in Bochs in the short form, on Intel VMX and on AMD SVM; the long one has all that can run
# there.
vmx_short='^(guests|cpu)::|^kicks::none_is_lost_(by_instruction_count|in_storms)|^kicks::none_of_two|^ends::a_triple_fault'
vmx_short+='|^flood::.*_by_instruction_count|^together::.*_by_instruction_count'
vmx_short+='|^lateness::'
vmx_short+='|^hostile::survivors::(a_storm_of_(exits_is_not_noticed|resets).*_by_instruction_count|no_privileged)'
vmx_short+='|^hostile::modes::(nmis_change|no_older)|^hostile::lives::(the_local_apic|no_end|random.*_by_instruction_count)'
# Of these the ones that take Bochs ten seconds to say what QEMU says in five.
bochs_long='^cpu::(exits_without_a_trace|a_cpu_ends)'
svm_short='^guests::(a_vcpu_looks|nmis_are)|^cpu::(every_mode|what_exits_ends)|^kicks::none_of_two_in_a_burst|^ends::(a_triple_fault|interrupts_that)'

# Why a test cannot run in Bochs, if so.
not_in_bochs() { # MACHINE NAME
    case $2 in
        *_by_threads*) echo "a machine with a thread for each pCPU; Bochs has one for all" ;;
        kicks::none_is_lost_by_a_guest*) echo "it is about how QEMU takes turns" ;;
        restart::one_that_is_stuck*) echo "time has to pass while everyone waits, which takes Bochs minutes" ;;
        witness::*) echo "the witness is QEMU's log of exits" ;;
        devices::*) echo "Bochs has none of the test devices, and port 0xE9 for itself" ;;
        duo::* | refusals::* | timeout::* | terminal::* | entries::the_multiboot*) echo "it starts QEMU by itself" ;;
        vmx_faults::* | vmx_lacking::*) echo "it starts Bochs by itself" ;;
        linux::*) echo "each boots kernels several times, which takes Bochs two minutes each; linux_rt has one" ;;
        typing::each_of_seven*) echo "Bochs has four serial ports" ;;
        *) [ "$1" != bochs-svm ] || not_on_svm_in_bochs "$2" ;;
    esac
}

not_on_svm_in_bochs() { # NAME
    case $1 in
        hostile::*) echo "the lists of instructions are those of QEMU's SVM and of VMX; what needs none was not tried there" ;;
        guests::a_second_vcpu*) echo "there no kick reaches a guest that handles an NMI (docs/platforms.md)" ;;
        cpu::breakpoints_and_*) echo "there the reason of a #DB is forgotten (docs/platforms.md)" ;;
    esac
}

in_bochs() { # MACHINE SHORT-FORM
    local machine=$1 short=$2 names name why later=0
    names=$(cargo test --quiet --locked -p partita --test partitions -- --ignored --list --format terse 2>/dev/null \
        | sed -n 's/: test$//p')
    [ -n "$names" ] || { run "$machine" false; return; }
    for name in $names; do
        why=$(not_in_bochs "$machine" "$name")
        if [ -n "$why" ]; then
            skip "$machine::$name" "$why"
        elif [ "$long" -eq 1 ] || [[ $name =~ $short && ! $name =~ $bochs_long ]]; then
            beside "$machine::$name" env PARTITA_MACHINE="$machine" cargo test --quiet --locked -p partita --test partitions -- \
                --exact --include-ignored "$name"
        else
            later=$((later + 1))
        fi
    done
    [ "$later" -eq 0 ] || skip "$machine-long" "$later more tests of partitions run there with --long"
}

# The demo, and what it has to leave.
demo() {
    local dir=target/partita/demo kind file
    rm -rf "$dir"
    bash ci/demo.sh || return 1
    for file in trace.bin hist.json bench.json hypervisor.log rt0.log neighbour.log; do
        [ -s "$dir/$file" ] || { echo "the demo left no $file"; return 1; }
    done
    for kind in exit ipi kick smp_call smp_leg; do
        grep -q "\"kind\": \"$kind\"" "$dir/hist.json" || { echo "hist.json has no histogram of kind $kind"; return 1; }
    done
}

run fmt cargo fmt --all --check
run clippy-host cargo clippy --quiet --all-targets --locked -- -D warnings
run clippy-bare cargo clippy --quiet --release --locked $bare_crates --target $bare -- -D warnings
run build-bare cargo build --quiet --release --locked $bare_crates --target $bare
run build-common-riscv cargo build --quiet --locked $common_crates --target riscv64gc-unknown-none-elf
run unit-tests cargo test --quiet --locked
run docs env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --locked

beside loom-trace loom partita-trace loom
beside loom-core loom partita-core loom_smp_call loom_rounds loom_partition

if cargo +nightly miri --version >/dev/null 2>&1; then
    beside miri-trace miri 10 partita-trace --test trace ring::
    beside miri-core miri 3 partita-core --test smp_call -- --exact \
        a_function_may_call_on_and_an_awaited_answer_is_not_overwritten \
        a_deadline_that_passes_while_the_function_runs_is_told_apart \
        a_call_that_makes_no_sense_is_refused_before_anyone_is_asked
else
    skip miri-trace "no nightly toolchain with miri"
    skip miri-core "no nightly toolchain with miri"
fi

for target in trace/region_header trace/trace_file trace/damaged_file hv/x86-policy/icr hv/x86-policy/msr_port hv/x86-policy/vmx hv/console/console tools/host/images; do
    if cargo +nightly fuzz --version >/dev/null 2>&1; then
        beside "fuzz-$(basename $target)" fuzz "$(dirname $target)" "$(basename $target)"
    else
        skip "fuzz-$(basename $target)" "no nightly toolchain with cargo-fuzz"
    fi
done

emulated partita-host qemu
emulated partita-host iso
emulated partita-host bochs
emulated partita-host size
emulated partita-host linux_bare
emulated partita-latency-tests suite
emulated partita-latency-tests exits
emulated partita-latency-tests profile
emulated partita-latency-tests from_trace
emulated partita-latency-tests peers
emulated partita partitions
in_bochs bochs "$vmx_short"
in_bochs bochs-svm "$svm_short"
emulated partita-host linux_rt
run demo demo
