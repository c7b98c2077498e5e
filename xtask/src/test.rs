//! `cargo xtask test`: all layers of tests, in order, and one line of result.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::{self, Level};
use crate::shell::{self, Refusal, human, say};
use crate::{bpf, build, fuzz, lab, project, vm};

/// Run the tests: every layer, or one.
#[derive(clap::Args)]
#[command(
    after_help = "Layers: `host` is a plain `cargo test` and needs neither root nor a BPF toolchain; `fuzz` runs \
                        the fuzz targets shortly; the others are the test programs of tests/tests/ (but guest, which vm runs).\n\nExamples:\n  cargo xtask test\n  cargo xtask test host\n  \
                        cargo xtask test netns\n  cargo xtask test netns -- vlan    only tests with `vlan` in their name"
)]
pub struct Args {
    /// Only this layer.
    layer: Option<String>,
    /// Handed to the test programs.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// The layer that is a plain `cargo test`.
const HOST: &str = "host";
/// The layer that runs each fuzz target for some seconds.
const FUZZ: &str = "fuzz";
/// The layer that starts an emulator instead of asking for root.
const VM: &str = "vm";
/// Layers that load the object themselves and start no `dpufw`.
const OBJECT_ONLY: [&str; 4] = [HOST, FUZZ, "load", VM];
/// The order of the others: cheap ones first. What is not named here comes before `vm`.
const ORDER: [&str; 10] = [
    "lab",
    "load",
    "packets",
    "dataplane",
    "differential",
    "netns",
    "expectations",
    "stress",
    "streams",
    "lifecycle",
];
/// No layer may hang a CI run; the slowest takes a few minutes.
const LIMIT: Duration = Duration::from_mins(30);

pub fn main(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let layers = choose(args.layer.as_deref())?;
    prepare(&layers)?;
    let mut total = Tally::default();
    let mut rows = Vec::new();
    for layer in &layers {
        let began = Instant::now();
        say("test", format_args!("layer {layer}"));
        let tally = run(layer, &args.rest)?;
        rows.push(format!("{layer:<12} {tally} ({})", human(began.elapsed())));
        total.add(&tally);
    }
    for row in rows {
        say("test", row);
    }
    say("test", format_args!("all of it took {}", human(start.elapsed())));
    println!("{total}");
    Ok(ExitCode::from(u8::from(total.failed > 0)))
}

/// The layers to run: the one asked for, or all that there are.
fn choose(wanted: Option<&str>) -> Result<Vec<String>> {
    let mut all = vec![HOST.to_owned(), FUZZ.to_owned()];
    let mut targets = test_targets()?;
    targets.sort_by_key(|name| match name.as_str() {
        VM => ORDER.len() + 1,
        name => ORDER
            .iter()
            .position(|&known| known == name)
            .unwrap_or(ORDER.len()),
    });
    all.extend(targets);
    match wanted {
        None => Ok(all),
        Some(name) if all.iter().any(|layer| layer == name) => Ok(vec![name.to_owned()]),
        Some(name) => {
            let sentence = format!("there is no layer `{name}`; there are: {}", all.join(", "));
            Err(Refusal::BadInput(sentence).into())
        }
    }
}

/// The test targets of `fw-tests`, as its Cargo.toml lists them.
fn test_targets() -> Result<Vec<String>> {
    let mut cargo = project::cargo();
    let text = shell::read(cargo.args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages
        .filter(|package| package["name"] == "fw-tests")
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        // Needs devices that this machine's kernel may lack: the layer `vm` runs it in a guest.
        .filter(|name| name != vm::SCENARIOS);
    Ok(targets.collect())
}

/// Installs and builds what the chosen layers need.
fn prepare(layers: &[String]) -> Result<()> {
    if layers.iter().any(|layer| layer == FUZZ) {
        setup::ensure(Level::Fuzz)?;
    }
    if layers.iter().all(|layer| [HOST, FUZZ].contains(&layer.as_str())) {
        return Ok(());
    }
    setup::ensure(Level::Build)?;
    setup::ensure(Level::Test)?;
    if layers.iter().any(|layer| layer == VM) {
        setup::ensure(Level::Vm)?;
    }
    bpf::object()?;
    if layers.iter().any(|layer| !OBJECT_ONLY.contains(&layer.as_str())) {
        build::binary(false)?;
    }
    Ok(())
}

/// Builds and runs one layer; true if all its tests passed.
pub fn layer(name: &str) -> Result<bool> {
    run(name, &[]).map(|tally| tally.failed == 0)
}

fn run(layer: &str, rest: &[String]) -> Result<Tally> {
    if layer == HOST {
        let mut cargo = project::cargo();
        cargo.args(["test", "--no-fail-fast", "--"]).args(rest);
        return stream(&mut cargo);
    }
    if layer == FUZZ {
        let (clean, findings) = fuzz::short()?;
        return Ok(Tally {
            passed: clean,
            failed: findings,
            skipped: 0,
        });
    }
    let program = executable(layer)?;
    let mut command = if layer == VM {
        user_command(&program)
    } else {
        root_command(&program)?
    };
    // The numbers that a test prints (instruction counts, shares of a random sample) are part of the result.
    command.args(["--show-output", "--color", colour()]).args(rest);
    stream(command.current_dir(project::root().join("tests")))
}

/// Builds one test program and returns its path. Built as the user and run apart, because only the run needs root.
pub fn executable(target: &str) -> Result<PathBuf> {
    let mut cargo = project::cargo();
    cargo.args([
        "test",
        "--test",
        target,
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run `{}`", shell::line(&cargo)))?;
    if !output.status.success() {
        bail!("the test program `{target}` does not compile: see above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let path = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.with_context(|| format!("cargo did not say where the test program `{target}` is"))
}

fn user_command(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(timeout_args()).arg(program);
    command
}

fn root_command(program: &Path) -> Result<Command> {
    let dpufw = project::target_dir().join("debug/dpufw");
    let mut command = shell::as_root("timeout")?;
    command
        .args(timeout_args())
        .arg("env")
        .arg(lab::variable(&dpufw))
        .arg(program);
    Ok(command)
}

/// First a signal on which the lab cleans up, then the certain one.
fn timeout_args() -> [String; 3] {
    [
        "--signal=TERM".into(),
        "--kill-after=20".into(),
        LIMIT.as_secs().to_string(),
    ]
}

fn colour() -> &'static str {
    if std::io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    }
}

/// Runs `command`, shows its output as it comes, and adds up its `test result:` lines.
fn stream(command: &mut Command) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shell::line(command)))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            tally.add(&Tally::parse(&line));
        }
    }
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        // Did not compile, crashed, or ran out of time: nothing on stdout says so.
        say(
            "test",
            format_args!("`{}` failed ({status})", shell::line(command)),
        );
        tally.failed = 1;
    }
    if status.success() && tally == Tally::default() {
        say("test", format_args!("`{}` ran no test", shell::line(command)));
        tally.failed = 1;
    }
    Ok(tally)
}

/// How many tests passed, failed, were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Reads libtest's closing line: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`. Any other line is nothing.
    fn parse(line: &str) -> Self {
        if !line.starts_with("test result: ") {
            return Self::default();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let before = |name: &str| {
            words
                .windows(2)
                .find(|pair| pair[1] == name)
                .and_then(|pair| pair[0].parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: before("passed;"),
            failed: before("failed;"),
            skipped: before("ignored;"),
        }
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read() {
        let line =
            "test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.60s";
        assert_eq!(
            Tally::parse(line),
            Tally {
                passed: 12,
                failed: 1,
                skipped: 2
            }
        );
        let coloured = "test result: \u{1b}[32mok\u{1b}[m. 7 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(Tally::parse(coloured).passed, 7);
        assert_eq!(Tally::parse("a test said: 5 passed; 1 failed;"), Tally::default());
    }

    #[test]
    fn a_crash_without_a_closing_line_is_a_failure() {
        let tally = stream(Command::new("sh").args(["-c", "exit 101"])).expect("sh runs");
        assert_eq!(
            tally,
            Tally {
                passed: 0,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_run_without_tests_is_a_failure() {
        let tally = stream(&mut Command::new("true")).expect("true runs");
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn the_result_is_one_line() {
        assert_eq!(
            Tally {
                passed: 3,
                failed: 0,
                skipped: 0
            }
            .to_string(),
            "3 passed, 0 failed"
        );
        assert_eq!(
            Tally {
                passed: 3,
                failed: 1,
                skipped: 2
            }
            .to_string(),
            "3 passed, 1 failed, 2 skipped"
        );
    }
}
