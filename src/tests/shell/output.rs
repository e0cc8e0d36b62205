//! The flag `-o FILE`: the file is replaced completely at the end, or it stays unchanged.

use super::targets::Scratch;
use super::*;

/// The names in a directory.
fn names(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(&scratch.0).expect("the directory is available");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("the directory can be read").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn with_an_output_file_nothing_is_printed_on_stdout() {
    let scratch = Scratch::new("file");
    let path = scratch.file("out", "before");
    let run = run(&["scan", "127.0.0.1", "9", "--json", "-o", &path]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
    let text = std::fs::read_to_string(&path).expect("the file exists");
    assert_eq!(json(&text)["domain"], "127.0.0.1");
    assert_eq!(names(&scratch), ["out"], "no temporary file is left");
}

#[test]
fn the_output_file_is_unchanged_until_the_scan_ends() {
    let scratch = Scratch::new("until");
    let path = scratch.file("out", "before");
    let (_silent, _clients, silent) = silent_port();
    let silent = silent.to_string();
    let args = ["scan", "127.0.0.1", &silent, "--timeout", "60s", "--format", "xml", "-o", &path];
    let child = openports(&args).stderr(Stdio::piped()).spawn().expect("the binary runs");
    while names(&scratch).len() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the file exists"), "before");
    // Signals are handled once the temporary file has its first bytes.
    let temporary = scratch.path(&names(&scratch)[0]);
    while std::fs::metadata(&temporary).map_or(0, |file| file.len()) == 0 {
        std::thread::yield_now();
    }
    signal(&child, "-INT");
    let run = decode(child.wait_with_output().expect("the scan ends"));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let text = std::fs::read_to_string(&path).expect("the file exists");
    assert!(text.contains(r#"exit="error""#) && text.ends_with("</nmaprun>\n"), "{text}");
    assert_eq!(names(&scratch), ["out"]);
}

#[test]
fn a_symbolic_link_and_the_mode_of_its_file_are_kept() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let scratch = Scratch::new("link");
    let path = scratch.file("real", "before");
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&path, mode).expect("the test owns the file");
    symlink("real", scratch.path("link")).expect("the link can be created");
    let run = run(&["scan", "127.0.0.1", "9", "--json", "-o", &scratch.path("link")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let link = std::fs::symlink_metadata(scratch.path("link")).expect("the link exists");
    assert!(link.is_symlink());
    let real = std::fs::metadata(&path).expect("the file exists");
    assert_eq!(real.permissions().mode() & 0o777, 0o640);
    assert!(
        std::fs::read_to_string(&path).expect("the output is UTF-8").starts_with("{\"from_port\"")
    );
}

#[test]
fn an_output_file_that_cannot_be_written_is_reported_in_one_line() {
    let scratch = Scratch::new("cannot");
    let folder = scratch.path("");
    for (path, expected) in [
        ("/no/such/dir/x", "-o /no/such/dir/x: there is no such directory"),
        ("/dev/full", "-o /dev/full: could not be written: No space left on device"),
        (&*folder, "is a directory"),
    ] {
        let run = run(&["scan", "127.0.0.1", "9", "-o", path]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{path}");
        assert_eq!(run.stderr.lines().count(), 1, "{path}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{path}: {}", run.stderr);
    }
    let empty = run(&["scan", "127.0.0.1", "9", "-o", ""]);
    assert_eq!(empty.code, Some(64), "{}", empty.stderr);
}

/// The file system has two pages, in its own mount namespace.
#[test]
fn a_full_disk_leaves_the_output_file_unchanged() {
    let scratch = Scratch::new("full");
    let script = r#"
        mount -t tmpfs -o size=8k none "$1" || exit 99
        printf before >"$1/out"
        "$0" scan 127.0.8.0/24 9 --json -o "$1/out"
        echo "code $?"
        cat "$1/out"; echo; ls -A "$1"
    "#;
    let binary = openports(&[]).get_program().to_owned();
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).arg(binary).arg(scratch.path(""));
    let run = decode(command.output().expect("unshare runs"));
    if run.code == Some(99) || run.stderr.contains("unshare failed") {
        return skip("this test needs to mount a tmpfs in a namespace");
    }
    assert_eq!(run.stdout, "code 1\nbefore\nout\n", "{}", run.stderr);
    assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
}
