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
fn the_temporary_file_of_a_killed_run_is_no_obstacle() {
    let scratch = Scratch::new("killed");
    // In a container, every run may have the same process id.
    let script = r#"
        echo left >"$1/.out.$$.tmp"
        exec "$0" scan 127.0.0.1:9 --json -o "$1/out"
    "#;
    let run = decode(sh(script, &scratch.path("")).output().expect("sh runs"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let text = std::fs::read_to_string(scratch.path("out")).expect("the file exists");
    assert_eq!(json(&text)["domain"], "127.0.0.1");
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
fn a_symbolic_link_whose_file_does_not_exist_is_kept() {
    let scratch = Scratch::new("dangling");
    std::fs::create_dir(scratch.path("folder")).expect("the folder can be created");
    for (target, link) in [("second", "folder/first"), ("folder/first", "link")] {
        std::os::unix::fs::symlink(target, scratch.path(link)).expect("the link can be created");
    }
    let run = run(&["scan", "127.0.0.1", "9", "--json", "-o", &scratch.path("link")]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(names(&scratch), ["folder", "link"]);
    let link = std::fs::symlink_metadata(scratch.path("link")).expect("the link exists");
    assert!(link.is_symlink());
    let text = std::fs::read_to_string(scratch.path("folder/second")).expect("the file exists");
    assert!(text.starts_with("{\"from_port\""), "{text}");
}

#[test]
fn the_file_behind_stdout_keeps_what_others_have_written() {
    let scratch = Scratch::new("stdout");
    let script = r#"
        exec >>"$1/out"
        echo before
        for path in /dev/stdout /dev/fd/1 /proc/self/fd/1 "$1/link"; do
            "$0" scan 127.0.0.1:9 --json -o "$path" || echo "code $?"
        done
        echo after
    "#;
    std::fs::write(scratch.path("out"), "first\n").expect("the file can be written");
    std::os::unix::fs::symlink("/dev/stdout", scratch.path("link")).expect("it can be created");
    let run = decode(sh(script, &scratch.path("")).output().expect("sh runs"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let text = std::fs::read_to_string(scratch.path("out")).expect("the file exists");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), &lines[..2], lines[6]), (7, &["first", "before"][..], "after"));
    assert!(lines[2..6].iter().all(|line| json(line)["domain"] == "127.0.0.1"), "{text}");
    assert_eq!(names(&scratch), ["link", "out"], "no temporary file is left");
}

#[test]
fn an_output_file_that_is_also_an_input_is_refused_under_every_path() {
    let scratch = Scratch::new("input");
    let path = scratch.file("list", "127.0.0.1\n");
    let other = scratch.path("./list");
    std::os::unix::fs::symlink("list", scratch.path("link")).expect("the link can be created");
    std::fs::hard_link(&path, scratch.path("hard")).expect("the link can be created");
    for flag in ["--targets", "--exclude-targets-from", "--resume", "--resolv-conf", "--hosts"] {
        for output in [&other, &scratch.path("link"), &scratch.path("hard")] {
            let run = run(&["scan", "127.0.0.2", "9", flag, &path, "-o", output]);
            assert_eq!((run.code, run.stdout.as_str()), (Some(64), ""), "{flag} {output}");
            let expected = format!("openports: {flag} \"{path}\": is the file of -o too");
            assert!(run.stderr.starts_with(&expected), "{}", run.stderr);
        }
    }
    let script = r#"cd "$1" && "$0" scan --targets - 9 -o list <list"#;
    let stdin = decode(sh(script, &scratch.path("")).output().expect("sh runs"));
    let expected = "openports: --targets \"-\": is the file of -o too";
    assert!(stdin.code == Some(64) && stdin.stderr.starts_with(expected), "{}", stdin.stderr);
    let variables = [("OPENPORTS_HOSTS", &*path), ("OPENPORTS_OUTPUT", &*path)];
    let run = decode(
        openports(&["scan", "127.0.0.2", "9"]).envs(variables).output().expect("the binary runs"),
    );
    let expected = format!(
        "openports: OPENPORTS_HOSTS \"{path}\": is the file of OPENPORTS_OUTPUT too, which would \
         replace it; name another for OPENPORTS_OUTPUT\n"
    );
    assert_eq!((run.code, &*run.stderr), (Some(64), &*expected));
    assert_eq!(std::fs::read_to_string(&path).expect("the file exists"), "127.0.0.1\n");
}

#[test]
fn an_output_file_that_cannot_be_written_is_reported_in_one_line() {
    let scratch = Scratch::new("cannot");
    let folder = scratch.path("");
    for (path, expected) in [
        ("/no/such/dir/x", "-o \"/no/such/dir/x\": there is no such directory"),
        ("/dev/full", "-o \"/dev/full\": could not be written: No space left on device"),
        (&*folder, "is a directory"),
    ] {
        let run = run(&["scan", "127.0.0.1", "9", "-o", path]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{path}");
        assert_eq!(run.stderr.lines().count(), 1, "{path}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{path}: {}", run.stderr);
        assert!(!run.stderr.contains("nothing was changed"), "{path}: {}", run.stderr);
    }
    let empty = run(&["scan", "127.0.0.1", "9", "-o", ""]);
    assert_eq!(empty.code, Some(64), "{}", empty.stderr);
}

#[test]
fn a_path_of_a_directory_is_refused_before_the_scan() {
    let scratch = Scratch::new("slash");
    std::os::unix::fs::symlink("folder/", scratch.path("link")).expect("the link can be created");
    // A port that is probed would stay silent for a minute.
    let (_silent, _clients, port) = silent_port();
    for name in ["a/", "a//", "a/.", "link", "link/"] {
        let path = scratch.path(name);
        let run = run(&["scan", "127.0.0.1", &port.to_string(), "--timeout", "60s", "-o", &path]);
        assert_eq!((run.code, names(&scratch)), (Some(1), vec!["link".to_owned()]), "{name}");
        assert!(run.stderr.ends_with(": this is no name of a file\n"), "{name}: {}", run.stderr);
    }
}

#[test]
fn every_legal_name_of_a_file_can_be_written() {
    let scratch = Scratch::new("long");
    for len in [1, 100, 101, 245, 255] {
        let path = scratch.path(&"n".repeat(len));
        for _ in 0..2 {
            let run = run(&["scan", "127.0.0.1", "9", "--json", "-o", &path]);
            assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{len}");
            json(&std::fs::read_to_string(&path).expect("the file exists"));
        }
        std::fs::remove_file(&path).expect("the file can be removed");
    }
    let run = run(&["scan", "127.0.0.1", "9", "-o", &scratch.path(&"n".repeat(256))]);
    assert!(run.code == Some(1) && run.stderr.contains("File name too long"), "{}", run.stderr);
    assert!(names(&scratch).is_empty());
}

#[test]
fn a_run_that_cannot_begin_leaves_no_temporary_file() {
    let scratch = Scratch::new("begin");
    let script = r#"ulimit -n 12; "$0" scan 127.0.0.1 9 -o "$1/out""#;
    let run = decode(sh(script, &scratch.path("")).output().expect("sh runs"));
    assert!(run.code == Some(1) && run.stderr.contains("descriptors"), "{}", run.stderr);
    assert!(names(&scratch).is_empty());
}

#[test]
fn a_file_that_was_replaced_by_a_directory_does_not_lose_the_results() {
    let scratch = Scratch::new("moved");
    let path = scratch.path("out");
    let (_silent, _clients, port) = silent_port();
    let mut child = openports(&["scan", "127.0.0.1", &port.to_string(), "--json", "-o", &path])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    while names(&scratch).is_empty() && child.try_wait().expect("it can be waited for").is_none() {
        std::thread::yield_now();
    }
    std::fs::create_dir(&path).expect("the directory can be created");
    let run = decode(child.wait_with_output().expect("the scan ends"));
    let names = names(&scratch);
    let kept = scratch.path(&names[0]);
    assert_eq!((run.code, names.len()), (Some(1), 2), "{}", run.stderr);
    let expected = format!(": Is a directory (os error 21); the output is kept in \"{kept}\"\n");
    assert!(run.stderr.ends_with(&expected), "{}", run.stderr);
    json(&std::fs::read_to_string(kept).expect("the file exists"));
}

#[test]
fn a_scan_waits_for_the_reader_of_a_fifo_and_reports_this() {
    let scratch = Scratch::new("reader");
    let path = scratch.path("fifo");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    let start = || {
        openports(&["scan", "127.0.0.1", "9", "--json", "-o", &path])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs")
    };
    let mut child = start();
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("the output is UTF-8");
    assert!(line.ends_with("is a FIFO, waiting for a reader\n"), "{line}");
    let text = std::fs::read_to_string(&path).expect("the FIFO has a writer");
    assert_eq!(json(&text)["domain"], "127.0.0.1");
    assert_eq!(child.wait().expect("the scan ends").code(), Some(0));
    // Opening it for reading and writing never blocks.
    let both = File::options().read(true).write(true).open(&path).expect("the FIFO exists");
    let run = decode(start().wait_with_output().expect("the scan ends"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "the FIFO has a reader");
    drop(both);
}

/// The file is a mount point, in its own mount namespace, as in a container.
#[test]
fn a_file_that_is_a_mount_point_gets_the_results() {
    let scratch = Scratch::new("mount");
    let script = r#"
        long=$(head -c 10000 /dev/zero | tr '\0' x)
        echo "$long" >"$1/real" && touch "$1/out"
        mount --bind "$1/real" "$1/out" || exit 99
        "$0" scan 127.0.8.0/24 9 --json -o "$1/out"
        echo "code $?"
        wc -l <"$1/real"; tail -n 1 "$1/real" | tail -c 2; ls -A "$1"
    "#;
    let Some(run) = run_mounting(script, &scratch) else { return };
    assert_eq!(run.stdout, "code 0\n256\n}\nout\nreal\n", "{}", run.stderr);
    assert_eq!(run.stderr, "");
}

/// Runs a script as [`sh`] does, in a mount namespace. `None` if this is not permitted.
fn run_mounting(script: &str, scratch: &Scratch) -> Option<Run> {
    let mut command = unconfigured("unshare");
    command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_openports")]);
    let run = decode(command.arg(scratch.path("")).output().expect("unshare runs"));
    if run.code == Some(99) || run.stderr.contains("unshare failed") {
        skip("this test needs to mount in a namespace");
        return None;
    }
    Some(run)
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
    let Some(run) = run_mounting(script, &scratch) else { return };
    assert_eq!(run.stdout, "code 1\nbefore\nout\n", "{}", run.stderr);
    assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
}

#[test]
fn a_limit_on_the_size_of_files_leaves_the_output_file_unchanged() {
    let scratch = Scratch::new("limit");
    let script = r#"
        ulimit -f 8
        printf before >"$1/out"
        "$0" scan 127.0.8.0/25 9 --json -o "$1/out"
        echo "code $?"
        cat "$1/out"; echo; ls -A "$1"
    "#;
    let run = decode(sh(script, &scratch.path("")).output().expect("sh runs"));
    assert_eq!(run.stdout, "code 1\nbefore\nout\n", "{}", run.stderr);
    let expected = "could not be written: File too large (os error 27); nothing was changed\n";
    assert!(run.stderr.ends_with(expected), "{}", run.stderr);
}
