//! `docs/configuration.md` is true to the code.

use partita_core::rules::Rule;
use partita_host::cargo_build;

fn configuration() -> String {
    std::fs::read_to_string(cargo_build::repository().unwrap().join("docs/configuration.md")).unwrap()
}

#[test]
fn every_rule_is_in_the_reference() {
    let text = configuration();
    for rule in Rule::ALL {
        let row = format!("| `{}` | {} |", rule.id(), rule.explanation());
        assert!(text.contains(&row), "docs/configuration.md lacks the row {row}");
    }
    let rows = text.split("## Rules").nth(1).unwrap().lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Rule::ALL.len(), "docs/configuration.md has a rule that is none");
}

#[test]
fn every_key_is_in_the_reference() {
    let text = configuration();
    // What serde says for an unknown key is the list of the known ones.
    for (table, system) in [
        ("system", "[system]\nname = 'x'\nwrong = 1\n"),
        ("machine", "[system]\nname = 'x'\n[machine]\nwrong = 1\n"),
        ("housekeeping", "[system]\nname = 'x'\n[housekeeping]\nwrong = 1\n"),
        ("run", "[system]\nname = 'x'\n[run]\nwrong = 1\n"),
        ("report", "[system]\nname = 'x'\n[report]\nwrong = 1\n"),
        ("trace", "[system]\nname = 'x'\n[trace]\nwrong = 1\n"),
        ("partition", "[system]\nname = 'x'\n[[partition]]\nwrong = 1\n"),
        ("image", "[system]\nname = 'x'\n[[partition]]\nimage = { wrong = 1 }\n"),
        ("initramfs", "[system]\nname = 'x'\n[[partition]]\nimage = { initramfs = { wrong = 1 } }\n"),
    ] {
        let error = partita_host::system_file::SystemFile::parse(system, "s.toml".as_ref()).unwrap_err().to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(!known.is_empty(), "{table}: {error}");
        for key in known {
            assert!(text.contains(&format!("`{key}`")), "docs/configuration.md lacks the key {key} of {table}");
        }
    }
}
