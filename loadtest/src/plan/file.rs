//! A plan as it is written, in TOML: mistakes are found with their place.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::part::Part;
use crate::plan::{PhasePlan, Plan};

/// The arguments of a scenario, or of the server: long names of the command line.
type Arguments = BTreeMap<Spanned<String>, Spanned<Value>>;

/// What the file has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    #[serde(default)]
    server: Arguments,
    phase: Spanned<Vec<PhaseTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseTable {
    name: Spanned<String>,
    run: Spanned<Vec<Arguments>>,
}

/// Something that is wrong, and the bytes it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    span: Range<usize>,
    pub(super) what: String,
}

/// The key that names a run's scenario.
const SCENARIO: &str = "scenario";
/// What is about the server, and therefore the same for all runs.
const SERVER_KEYS: [&str; 11] = [
    "against",
    "api",
    "destinations",
    "peer",
    "pid",
    "reactors",
    "server",
    "set",
    "target",
    "tls",
    "tls-ca",
];
/// What every run is told about the server, for now: it shows what does not go together with a running one.
const SOMEWHERE: [&str; 4] = [
    "--target=ws://127.0.0.1:1",
    "--api=http://127.0.0.1:1",
    "--peer=ws://127.0.0.1:1",
    "--pid=1",
];
/// What is about the whole plan.
const PLAN_KEYS: [&str; 2] = ["no-record", "record-dir"];

impl PlanFile {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Result<Self, Mistake> {
        toml::from_str(text).map_err(|error| Mistake {
            span: error.span().unwrap_or(0..0),
            what: error.message().to_owned(),
        })
    }

    /// Makes the plan, and reads every argument as the command line would.
    pub(super) fn plan(&self, text: &str) -> Result<Plan, Mistake> {
        let phases = self.phase.get_ref().iter();
        let phases: Vec<PhasePlan> = phases.map(PhaseTable::plan).collect::<Result<_, _>>()?;
        if phases.is_empty() {
            return Err(mistake(
                self.phase.span(),
                "a plan has at least one [[phase]]",
            ));
        }
        // What a started server makes room for: the most lines there are at a time.
        let most = phases.iter().map(|phase| phase.lines).max().unwrap_or(0);
        let names = SERVER_KEYS.map(str::to_owned);
        let mut words = vec!["idle".to_owned(), format!("--connections={}", most.max(1))];
        words.extend(self.words_of(&names)?);
        let server = Part {
            label: String::new(),
            words,
        };
        let span = self
            .server
            .keys()
            .next()
            .map_or_else(|| 0..text.len().min(1), Spanned::span);
        let server = server
            .parse()
            .map_err(|error| mistake(span, told(&error)))?;
        Ok(Plan {
            server: server.common().clone(),
            phases,
        })
    }

    fn words_of(&self, names: &[String]) -> Result<Vec<String>, Mistake> {
        words(&self.server, names, &|key| {
            format!("`{key}` is not about the server")
        })
    }
}

impl PhaseTable {
    fn plan(&self) -> Result<PhasePlan, Mistake> {
        let name = self.name.get_ref();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(is_word) {
            return Err(mistake(
                self.name.span(),
                "a name has letters, digits, `_` and `-`",
            ));
        }
        if self.run.get_ref().is_empty() {
            return Err(mistake(
                self.run.span(),
                "a phase has at least one [[phase.run]]",
            ));
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut first_line = 0;
        for arguments in self.run.get_ref() {
            let scenario = scenario(arguments, &self.run)?;
            let label = format!("{name}.{}", scenario.get_ref());
            let twins = parts
                .iter()
                .filter(|part| part.label.split('#').next() == Some(&label));
            let label = match twins.count() {
                0 => label,
                n => format!("{label}#{}", n + 1),
            };
            let (part, lines) = part(arguments, label, first_line, &scenario)?;
            first_line = first_line.saturating_add(lines);
            parts.push(part);
        }
        Ok(PhasePlan {
            name: name.clone(),
            parts,
            lines: first_line,
        })
    }
}

impl Mistake {
    /// Line and column, counted from one.
    pub(super) fn place(&self, text: &str) -> String {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!("{line}:{column}")
    }
}

fn mistake(span: Range<usize>, what: impl Into<String>) -> Mistake {
    Mistake {
        span,
        what: what.into(),
    }
}

/// Which scenario a run is of.
fn scenario<T>(arguments: &Arguments, whole: &Spanned<T>) -> Result<Spanned<String>, Mistake> {
    let found = arguments.iter().find(|(key, _)| key.get_ref() == SCENARIO);
    let Some((_, value)) = found else {
        let span = arguments
            .keys()
            .next()
            .map_or_else(|| whole.span(), Spanned::span);
        return Err(mistake(span, "a run names its `scenario`"));
    };
    let known = Part::scenario_names();
    let name = value.get_ref().as_str().unwrap_or_default();
    if known.iter().any(|known| known == name) {
        return Ok(Spanned::new(value.span(), name.to_owned()));
    }
    let what = format!(
        "{} is no scenario; there are {}",
        value.get_ref(),
        known.join(", ")
    );
    Err(mistake(value.span(), what))
}

/// A run of a scenario as a part, and how many lines it has.
fn part(
    arguments: &Arguments,
    label: String,
    first_line: u32,
    name: &Spanned<String>,
) -> Result<(Part, u32), Mistake> {
    let mut names = Part::argument_names(name.get_ref()).unwrap_or_default();
    names.retain(|n| !SERVER_KEYS.contains(&n.as_str()) && !PLAN_KEYS.contains(&n.as_str()));
    names.push(SCENARIO.to_owned());
    let unknown = |key: &str| match key {
        key if SERVER_KEYS.contains(&key) => {
            format!("`{key}` is about the server: it belongs into [server]")
        }
        key if PLAN_KEYS.contains(&key) => {
            format!("`{key}` is about the whole plan: it belongs beside --plan")
        }
        key => format!("`{key}` is no argument of `{}`", name.get_ref()),
    };
    let mut own = vec![name.get_ref().clone()];
    own.extend(words(arguments, &names, &unknown)?);
    if !arguments
        .keys()
        .any(|key| dashed(key.get_ref()) == "first-line")
    {
        own.push(format!("--first-line={first_line}"));
    }
    let somewhere = SOMEWHERE.map(str::to_owned);
    let whole = Part {
        label: label.clone(),
        words: [&own[..], &somewhere].concat(),
    };
    let read = whole
        .parse()
        .map_err(|error| mistake(name.span(), told(&error)))?;
    let part = Part { label, words: own };
    Ok((part, read.common().lines.connections))
}

/// Arguments as words: `rate = 5`, `tls = true`, `set = ["a", "b"]`.
fn words(
    arguments: &Arguments,
    names: &[String],
    unknown: &dyn Fn(&str) -> String,
) -> Result<Vec<String>, Mistake> {
    let mut words = Vec::new();
    for (key, value) in arguments {
        let name = dashed(key.get_ref());
        if !names.contains(&name) {
            return Err(mistake(key.span(), unknown(&name)));
        }
        if name == SCENARIO {
            continue;
        }
        let single = std::slice::from_ref(value.get_ref());
        let each = value.get_ref().as_array().map_or(single, Vec::as_slice);
        for one in each {
            match one {
                Value::Boolean(true) => words.push(format!("--{name}")),
                Value::Boolean(false) => {}
                Value::String(text) => words.push(format!("--{name}={text}")),
                Value::Integer(n) => words.push(format!("--{name}={n}")),
                Value::Float(x) => words.push(format!("--{name}={x}")),
                Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                    let what = format!("`{name}` is text, a number, a switch, or a list of them");
                    return Err(mistake(value.span(), what));
                }
            }
        }
    }
    Ok(words)
}

fn dashed(key: &str) -> String {
    key.replace('_', "-")
}

/// What the command line's reader has to say, without its advice on usage.
fn told(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    first.trim_start_matches("error: ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[server]
reactors = 2
set = ["heartbeat.ping_after=20s", "limits.lines=0"]

[[phase]]
name = "calm"
[[phase.run]]
scenario = "idle"
connections = 100
hold = "2s"

[[phase]]
name = "busy"
[[phase.run]]
scenario = "push"
connections = 300
rate = 50.5
[[phase.run]]
scenario = "push"
connections = 200
canary = 10
[[phase.run]]
scenario = "stream"
first_line = 5000
baseline = true
connections = 10
"#;

    fn read(text: &str) -> Result<Plan, String> {
        let plan = PlanFile::parse(text).and_then(|file| file.plan(text));
        plan.map_err(|mistake| format!("{}: {}", mistake.place(text), mistake.what))
    }

    #[test]
    fn a_plan_becomes_words_of_the_command_line() {
        let plan = read(GOOD).unwrap();
        let labels =
            |phase: &PhasePlan| -> Vec<_> { phase.parts.iter().map(|p| p.label.clone()).collect() };
        assert_eq!(labels(&plan.phases[0]), ["calm.idle"]);
        assert_eq!(
            labels(&plan.phases[1]),
            ["busy.push", "busy.push#2", "busy.stream"]
        );
        let words = &plan.phases[0].parts[0].words;
        assert_eq!(
            words,
            &["idle", "--connections=100", "--hold=2s", "--first-line=0"]
        );
        assert!(
            plan.phases[1].parts[2]
                .words
                .contains(&"--baseline".to_owned())
        );
        assert_eq!(plan.server.server.set.len(), 2);
        assert_eq!(
            (plan.server.server.reactors, plan.server.lines.connections),
            (Some(2), 510)
        );
    }

    #[test]
    fn lines_of_a_phase_have_numbers_of_their_own() {
        let plan = read(GOOD).unwrap();
        let firsts = plan.phases[1]
            .parts
            .iter()
            .map(|part| part.parse().unwrap().common().lines.first_line);
        assert_eq!(firsts.collect::<Vec<_>>(), [0, 300, 5_000]);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let phase = "[[phase]]\nname = \"a\"\n[[phase.run]]\nscenario = \"idle\"\n";
        let cases = [
            ("[[phase]\n".to_owned(), "1:"),
            ("x = 1\n".to_owned() + phase, "1:1: unknown field `x`"),
            (
                "[[phase]]\nname = \"a\"\nspeed = 3\n".to_owned(),
                "3:1: unknown field `speed`",
            ),
            (
                phase.to_owned() + "spede = 3\n",
                "5:1: `spede` is no argument of `idle`",
            ),
            (
                phase.to_owned() + "connections = 0\n",
                "4:12: invalid value '0'",
            ),
            (
                phase.to_owned() + "ping_after = \"3s\"\n",
                "4:12: the argument '--ping-after",
            ),
            (
                phase.to_owned() + "hold = { s = 3 }\n",
                "5:8: `hold` is text",
            ),
            (
                phase.to_owned() + "reactors = 3\n",
                "5:1: `reactors` is about the server",
            ),
            (
                phase.to_owned() + "no_record = true\n",
                "5:1: `no-record` is about the whole plan",
            ),
            (
                "[server]\nrate = 3\n".to_owned() + phase,
                "2:1: `rate` is not about the server",
            ),
            (
                "[server]\nreactors = \"x\"\n".to_owned() + phase,
                "2:1: invalid value 'x'",
            ),
            (
                "[[phase]]\nname = \"a\"\n[[phase.run]]\nscenario = \"idel\"\n".to_owned(),
                "4:12: \"idel\" is no scenario",
            ),
            (
                "[[phase]]\nname = \"a\"\n[[phase.run]]\nhold = \"1s\"\n".to_owned(),
                "4:1: a run names its `scenario`",
            ),
            (
                "[[phase]]\nname = \"a b\"\n[[phase.run]]\nscenario = \"idle\"\n".to_owned(),
                "2:8: a name has letters",
            ),
            ("phase = []\n".to_owned(), "1:9: a plan has at least one"),
            (
                "[[phase]]\nname = \"a\"\nrun = []\n".to_owned(),
                "3:7: a phase has at least one",
            ),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(expected), "{text}\n{error}");
        }
    }
}
