//! The manual and the completions of shells, written from the table of flags.
//!
//! A part of the room `config`, for tests alone: the pages stand under `docs/`, and a test fails
//! where they are not what the table makes of them; `OPENPORTS_PAGES=write cargo test pages`
//! writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::config::flags::{Arity, FLAGS, Flag, Preset};
use crate::config::help::Command;

#[test]
fn the_pages_are_what_the_table_of_flags_makes_of_them() {
    let wants_writing = std::env::var_os("OPENPORTS_PAGES").is_some_and(|value| value == "write");
    for (name, page) in [
        ("openports.1", manual()),
        ("completions/openports.bash", bash()),
        ("completions/_openports", zsh()),
        ("completions/openports.fish", fish()),
    ] {
        let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
        if wants_writing {
            std::fs::write(&path, &page).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        let differing = found.lines().zip(page.lines()).find(|(is, should)| is != should);
        let hint = "write it anew: OPENPORTS_PAGES=write cargo test pages";
        assert!(found == page, "docs/{name} is out of date at {differing:?}; {hint}");
    }
}

fn flags_of(command: Command) -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(move |flag| flag.commands.contains(&command))
}

/// What a value can be, where that is a matter of a few words.
fn choices(flag: &Flag) -> Option<&'static str> {
    match flag.metavar {
        "LEVEL" => Some("error warn info debug"),
        "FORMAT" => Some("logfmt json"),
        "4|6" => Some("4 6"),
        _ => None,
    }
}

fn manual() -> String {
    let mut page = String::from(MANUAL_HEAD);
    for (name, command, about) in Command::ALL {
        write!(page, ".SS {name}\n{}.\n", roff(about)).unwrap();
        for flag in flags_of(command) {
            let (name, help) = (roff(flag.name), roff(flag.help));
            let value = match flag.arity {
                Arity::Switch => String::new(),
                Arity::Once | Arity::List => format!(" \\fI{}\\fR", flag.metavar),
            };
            let (Preset::Value(preset) | Preset::Unset(preset)) = flag.preset;
            let (variable, preset) = (flag.variable(), roff(preset));
            write!(page, ".TP\n\\fB\\-\\-{name}\\fR{value}\n{help}.\n").unwrap();
            writeln!(page, "Variable \\fB{variable}\\fR, default {preset}.").unwrap();
        }
    }
    page.push_str(MANUAL_TAIL);
    page
}

fn roff(text: &str) -> String {
    assert!(!text.starts_with(['.', '\'']) && !text.contains('\\'), "{text:?} is plain");
    text.replace('-', "\\-")
}

const MANUAL_HEAD: &str = concat!(
    ".TH OPENPORTS 1 \"\" \"openports ",
    env!("CARGO_PKG_VERSION"),
    "\" \"User Commands\"\n",
    r#".SH NAME
openports \- find a host's open TCP ports
.SH SYNOPSIS
.B openports
[\fBserve\fR] [\fIFLAG\fR]...
.br
.B openports scan
[\fIFLAG\fR]... \fIDOMAIN\fR [\fIPORTS\fR]
.br
.B openports scan
[\fIFLAG\fR]... \fB\-\-targets\fR \fIFILE\fR [\fIPORTS\fR]
.br
.B openports healthcheck
[\fIFLAG\fR]... [\fIADDRESS:PORT\fR]
.SH DESCRIPTION
.B openports
connects to every port asked for and tells which are open, over HTTP or from a shell.
It needs no privileges.
.PP
\fIPORTS\fR is a list such as 22,80,8000\-8100,60000\-; without it a scan tries every port.
A list of targets has one on each line: a name or an address and, if it has ports of its own,
a blank and these. Empty lines, and what follows a #, are skipped.
.SH COMMANDS AND FLAGS
A flag beats its variable, and a variable the default. A variable of a flag that may be repeated
holds several values, separated by commas; that of a flag without a value holds true or false.
A duration is a number and its unit: 250ms, 2s, 1.5s, 5m.
"#
);

const MANUAL_TAIL: &str = r#".SH SHARDS
With \fB\-\-shard\fR \fII/N\fR, N machines that are given the same targets, ports and exclusions in
the same order together probe each port of each target exactly once. The targets' ports make one
long list; a permutation, the same on every machine, shuffles it, and shard I takes every N\-th
item from the I\-th on.
.SH EXIT STATUS
.TP
.B 0
Done. Of a scan: every port of every target has its state. A reader of its output that goes early,
as
.BR head (1)
does, has read enough.
.TP
.B 1
Something asked for was not scanned, or not whole; or the service asked is not well.
.TP
.B 64
Wrong usage.
.TP
.B 71
The service could not be started.
.SH SIGNALS
SIGTERM and SIGINT let a service finish what it has begun. A scan prints what is known so far and
ends. A second signal ends either at once.
.SH ENVIRONMENT
.TP
.B NO_COLOR
If set and not empty, no table has colours.
.TP
.BR LISTEN_PID ", " LISTEN_FDS
Set by
.BR systemd (1):
the listeners of a service, in place of \fBOPENPORTS_LISTEN\fR and of the default; see
.BR sd_listen_fds (3).
.SH FILES
.TP
.I /etc/services
Names of services in tables; where it has none, a list built in.
.SH EXAMPLES
.nf
openports scan localhost
openports scan \-\-json example.com 1\-1024
openports scan \-\-targets hosts.txt \-\-shard 2/3 22,80,443
openports serve \-\-listen [::]:8080
openports serve \-\-listen unix:/run/openports.sock
.fi
"#;

fn bash() -> String {
    let mut page = String::from(BASH_HEAD);
    for (name, command, _) in Command::ALL {
        let mut flags: Vec<String> =
            flags_of(command).map(|flag| format!("--{}", flag.name)).collect();
        flags.extend(["--help".to_owned(), "--version".to_owned()]);
        writeln!(page, "        {name}) flags=\"{}\" ;;", flags.join(" ")).unwrap();
    }
    page.push_str("    esac\n    case $previous in\n");
    for (reply, names) in bash_replies() {
        let names: Vec<String> = names.iter().map(|name| format!("--{name}")).collect();
        writeln!(page, "        {}) COMPREPLY=({reply}); return ;;", names.join("|")).unwrap();
    }
    page.push_str(BASH_TAIL);
    page
}

/// What completes a flag's value, and the flags of which it does.
fn bash_replies() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut replies: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for flag in FLAGS.iter().filter(|flag| flag.arity != Arity::Switch) {
        let reply = match (choices(flag), flag.metavar) {
            (Some(words), _) => format!("$(compgen -W \"{words}\" -- \"$current\")"),
            (None, "FILE") => "$(compgen -f -- \"$current\")".to_owned(),
            (None, _) => String::new(),
        };
        replies.entry(reply).or_default().insert(flag.name);
    }
    replies
}

const BASH_HEAD: &str = r#"# Completion of openports for bash, from the table of flags; tested.

_openports() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local command=serve commands="serve scan healthcheck" word flags
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            serve|scan|healthcheck) command=$word; commands=; break ;;
        esac
    done
    case $command in
"#;

const BASH_TAIL: &str = r#"    esac
    case $current in
        -*) COMPREPLY=($(compgen -W "$flags" -- "$current")) ;;
        *)
            COMPREPLY=($(compgen -W "$commands" -- "$current"))
            if [[ $command == scan ]]; then
                COMPREPLY+=($(compgen -A hostname -- "$current"))
            fi
            ;;
    esac
}

complete -F _openports openports
"#;

fn zsh() -> String {
    let mut page = String::from(ZSH_HEAD);
    for (name, _, about) in Command::ALL {
        writeln!(page, "        '{name}:{}'", quoted(about)).unwrap();
    }
    page.push_str(ZSH_MIDDLE);
    for (name, command, _) in Command::ALL {
        writeln!(page, "        {name})\n            flags=(").unwrap();
        for flag in flags_of(command) {
            let repeats = if flag.arity == Arity::List { "*" } else { "" };
            let help = quoted(flag.help).replace('[', "\\[").replace(']', "\\]");
            let value = match (flag.arity, choices(flag), flag.metavar) {
                (Arity::Switch, ..) => String::new(),
                (Arity::Once | Arity::List, Some(words), metavar) => {
                    format!(":{metavar}:({words})")
                }
                (Arity::Once | Arity::List, None, "FILE") => ":FILE:_files".to_owned(),
                (Arity::Once | Arity::List, None, metavar) => {
                    format!(":{}: ", metavar.replace(':', "\\:"))
                }
            };
            let equals = if flag.arity == Arity::Switch { "" } else { "=" };
            writeln!(page, "                '{repeats}--{}{equals}[{help}]{value}'", flag.name)
                .unwrap();
        }
        page.push_str("            )\n            ;;\n");
    }
    page.push_str(ZSH_TAIL);
    page
}

/// For single quotes.
fn quoted(text: &str) -> String {
    assert!(!text.contains('\\'), "{text:?} is plain");
    text.replace('\'', "'\\''")
}

const ZSH_HEAD: &str = r#"#compdef openports
# Completion of openports for zsh, from the table of flags; tested.

_openports_commands() {
    local -a commands=(
"#;

const ZSH_MIDDLE: &str = r#"    )
    _describe command commands
}

_openports() {
    local command=serve word
    local -a flags rest=('1:command:_openports_commands')
    for word in ${words[2,CURRENT-1]}; do
        case $word in
            serve) rest=('1: : '); break ;;
            scan) command=scan; rest=('1: : ' '2:DOMAIN:_hosts' '3:PORTS: '); break ;;
            healthcheck) command=healthcheck; rest=('1: : ' '2:ADDRESS\:PORT: '); break ;;
        esac
    done
    case $command in
"#;

const ZSH_TAIL: &str = r#"    esac
    flags+=('(- *)'{-h,--help}'[print the help]' '(- *)'{-V,--version}'[print the version]')
    _arguments -S $flags $rest
}

_openports "$@"
"#;

fn fish() -> String {
    let mut page = String::from(FISH_HEAD);
    for (name, _, about) in Command::ALL {
        let none = "-n 'not __fish_seen_subcommand_from serve scan healthcheck'";
        writeln!(page, "complete -c openports {none} -a {name} -d {}", fish_quoted(about)).unwrap();
    }
    for (name, command, _) in Command::ALL {
        let given = match command {
            Command::Serve => "not __fish_seen_subcommand_from scan healthcheck".to_owned(),
            Command::Scan | Command::Healthcheck => {
                format!("__fish_seen_subcommand_from {name}")
            }
        };
        for flag in flags_of(command) {
            let value = match (flag.arity, choices(flag), flag.metavar) {
                (Arity::Switch, ..) => String::new(),
                (Arity::Once | Arity::List, Some(words), _) => format!(" -x -a '{words}'"),
                (Arity::Once | Arity::List, None, "FILE") => " -r -F".to_owned(),
                (Arity::Once | Arity::List, None, _) => " -x".to_owned(),
            };
            let help = fish_quoted(flag.help);
            writeln!(page, "complete -c openports -n '{given}' -l {}{value} -d {help}", flag.name)
                .unwrap();
        }
    }
    page
}

fn fish_quoted(text: &str) -> String {
    assert!(!text.contains('\\'), "{text:?} is plain");
    format!("'{}'", text.replace('\'', "\\'"))
}

const FISH_HEAD: &str = "\
# Completion of openports for fish, from the table of flags; tested.

complete -c openports -f
complete -c openports -s h -l help -d 'print the help'
complete -c openports -s V -l version -d 'print the version'
complete -c openports -n '__fish_seen_subcommand_from scan' -a '(__fish_print_hostnames)'
";
