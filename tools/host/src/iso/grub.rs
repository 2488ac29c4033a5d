//! GRUB's configuration.

/// Where the kernel is in the image.
pub(super) const KERNEL: &str = "partita/kernel.elf";
/// Where its module is.
pub(super) const MODULE: &str = "partita/bundle.bin";
/// Where the configuration of the menu is.
pub(super) const CONFIG: &str = "boot/grub/grub.cfg";

/// What GRUB needs in an emulator: to read a CD and to boot, and to say on COM1 what is wrong.
pub(super) const EMULATOR_MODULES: &[&str] = &["biosdisk", "iso9660", "multiboot2", "boot", "serial", "terminal"];

/// What GRUB needs on machines, besides its driver of disks: to find the image, the menu, and what helps to find errors.
pub(super) const MACHINE_MODULES: &[&str] = &[
    "boot",
    "cat",
    "configfile",
    "echo",
    "halt",
    "iso9660",
    "ls",
    "minicmd",
    "multiboot2",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_file",
    "serial",
    "terminal",
];

/// Finds the image on whichever device it is. The menu follows.
pub(super) const FIND_CONFIG: &str =
    "search --no-floppy --file --set=root /partita/kernel.elf\nset prefix=($root)/boot/grub\n";

/// The commands that load the kernel with its arguments, and its module.
pub(super) fn boot_commands(arguments: &str, has_module: bool) -> Vec<String> {
    let mut commands = vec![format!("multiboot2 /{KERNEL} {arguments}").trim_end().to_owned()];
    if has_module {
        commands.push(format!("module2 /{MODULE}"));
    }
    commands
}

/// Boots at once, and leaves COM1 to the kernel. Only if that fails, it is tried once more, with what GRUB has to say on COM1.
pub(super) fn emulator_config(commands: &[String]) -> String {
    let boot = || commands.iter().map(String::as_str).chain(["boot"]);
    let aloud = ["serial --unit=0 --speed=115200", "terminal_output serial"];
    boot().chain(aloud).chain(boot()).flat_map(|line| [line, "\n"]).collect()
}

/// Boots from a menu after some seconds, on the screen and at COM1.
pub(super) fn machine_config(commands: &[String]) -> String {
    let commands: String = commands.iter().map(|command| format!("    {command}\n")).collect();
    format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         set timeout=3\n\
         menuentry 'Partita' {{\n\
         {commands}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_booted_with_arguments_and_module() {
        let commands = boot_commands("'a' 'b'", true);
        assert_eq!(commands, ["multiboot2 /partita/kernel.elf 'a' 'b'", "module2 /partita/bundle.bin"]);
        assert_eq!(boot_commands("", false), ["multiboot2 /partita/kernel.elf"]);
        let emulator = emulator_config(&commands);
        let boot = "multiboot2 /partita/kernel.elf 'a' 'b'\nmodule2 /partita/bundle.bin\nboot\n";
        assert!(emulator.starts_with(boot) && emulator.ends_with(&format!("\nterminal_output serial\n{boot}")));
        let machine = machine_config(&commands);
        assert!(machine.ends_with(
            "\nmenuentry 'Partita' {\n    multiboot2 /partita/kernel.elf 'a' 'b'\n    module2 /partita/bundle.bin\n}\n"
        ));
        assert!(FIND_CONFIG.contains(KERNEL) && CONFIG.starts_with("boot/grub/"));
    }
}
