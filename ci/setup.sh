#!/usr/bin/env bash
# Installs what building, testing and running Partita needs: Debian packages (ci/packages.txt) and parts of the Rust
# toolchain. Does nothing where everything is there. Needs root, or sudo, only if a package is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "root is needed for: $*; run ci/setup.sh as root once, or install sudo"; fi
}

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# QEMU before version 9 has no x2APIC under TCG.
qemu_is_new_enough() {
    command -v qemu-system-x86_64 >/dev/null || return 1
    local major
    major=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 9 ]
}

# The mirror that this machine already uses for its own release.
mirror() {
    apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' \
        | awk -v release="$1" '$1 == release { print $2; exit }'
}

is_bookworm() { [ "$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")" = bookworm ]; }

# Adds bookworm-backports to the sources of a Debian 12, if it is not there: for QEMU, and for the kernels of the tests.
add_backports() {
    is_bookworm || return 0
    local list=/etc/apt/sources.list.d/partita-backports.list suites uri
    suites=$(apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages')
    ! grep -qx bookworm-backports <<< "$suites" || return 0
    uri=$(mirror bookworm)
    [ -n "$uri" ] || fail "apt knows no mirror of bookworm to take bookworm-backports from; add one to its sources"
    printf 'deb %s bookworm-backports main\n' "$uri" | as_root tee "$list" >/dev/null
    as_root apt-get update -qq
}

packages() {
    [ -r /etc/debian_version ] || fail "this is not Debian; install what ci/packages.txt lists (QEMU 9 or later) by hand"
    local codename plain=() backports=() name
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    while read -r name; do
        case "$name" in
            ''|'#'*) ;;
            backports:*) backports+=("${name#backports: }") ;;
            *) plain+=("$name") ;;
        esac
    done < ci/packages.txt

    local missing=() late=()
    for name in "${plain[@]}"; do installed "$name" || missing+=("$name"); done
    for name in "${backports[@]}"; do installed "$name" || late+=("$name"); done
    qemu_is_new_enough || late=("${backports[@]}")
    [ ${#missing[@]} -gt 0 ] || [ ${#late[@]} -gt 0 ] || return 0

    say "installing: ${missing[*]} ${late[*]}"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    if [ "$codename" = bookworm ] && [ ${#late[@]} -gt 0 ]; then
        add_backports
        as_root apt-get install -y -qq --no-install-recommends -t bookworm-backports "${late[@]}" >/dev/null
        late=()
    fi
    if [ ${#missing[@]} -gt 0 ] || [ ${#late[@]} -gt 0 ]; then
        as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" "${late[@]}" >/dev/null
    fi
    qemu_is_new_enough || fail "QEMU is older than version 9 after the installation; use Debian 12 with backports, or 13"
}

# Package lists, from which `partita run` takes the packages that a system names.
package_lists() {
    add_backports
    local names=(busybox-static linux-image-amd64) name
    ! is_bookworm || names+=(linux-image-amd64/bookworm-backports)
    for name in "${names[@]}"; do
        # Of a suite that it does not know, apt-cache says nothing, with success.
        [ -z "$(apt-cache show "$name" 2>/dev/null)" ] || continue
        as_root apt-get update -qq
        return
    done
}

rust() {
    if ! command -v rustup >/dev/null && [ -r "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
    command -v rustup >/dev/null || fail "rustup is not installed; install it with the stable toolchain first"
    local have target component
    have=$(rustup target list --installed)
    for target in x86_64-unknown-none riscv64gc-unknown-none-elf; do
        grep -qx "$target" <<< "$have" || { say "adding target $target"; rustup target add "$target"; }
    done
    have=$(rustup component list --installed)
    for component in clippy rustfmt; do
        grep -q "^$component" <<< "$have" || { say "adding component $component"; rustup component add "$component"; }
    done
}

# Miri and fuzzing need a nightly toolchain; without one, ci/test.sh skips them and says so.
nightly() {
    rustup toolchain list | grep -q '^nightly' || return 0
    local have component
    have=$(rustup +nightly component list --installed)
    for component in miri rust-src; do
        grep -q "^$component" <<< "$have" || rustup +nightly component add "$component" || say "no $component for nightly"
    done
    command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz || say "no cargo-fuzz"
}

packages
package_lists
rust
nightly
say "ready"
