//! Reading one table of a file: what is asked for is read, what was never asked for is unknown, and all
//! that is wrong is collected, each with its place.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// How alike two keys have to be (Jaro-Winkler, 0 to 1) for one to be a slip of the other.
const SIMILAR: f64 = 0.8;

/// A value with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// One table while it is read.
pub(super) struct Fields<'a> {
    /// What people call it, such as `[service.resize]`.
    name: String,
    /// Where it begins.
    span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(name: impl Into<String>, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        Self { name: name.into(), span, table, asked: BTreeSet::new(), problems: Vec::new() }
    }

    /// What is behind that key, as `read` reads it; its error says what is allowed.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(help) => {
                let message = format!("`{key}` of {} has a wrong value", self.name);
                self.problem(value.span(), message, Some(help));
                None
            }
        }
    }

    /// What is behind that key, whatever it is.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.asked.insert(key);
        self.table.get(key)
    }

    /// The table behind that key.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Fields<'a>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                let name = format!("`{key}` of {}", self.name);
                Some(Fields::new(name, value.span(), table))
            }
            other => {
                let message = format!("`{key}` of {} has a wrong value", self.name);
                self.problem(value.span(), message, Some(not("a table", other)));
                None
            }
        }
    }

    /// The tables behind that key, each with its own key: `[service.a]`, `[service.b]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(&'a str, Fields<'a>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Table(all) = value.get_ref() else {
            let help = format!("write [{key}.NAME]");
            self.problem(value.span(), format!("`{key}` is a table of tables"), Some(help));
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, value) in all {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let called = format!("[{key}.{}]", name.get_ref());
                    found.push((name.get_ref().as_ref(), Fields::new(called, name.span(), table)));
                }
                other => {
                    let help = format!("{}; write [{key}.NAME]", not("a table", other));
                    let message = format!("`{}` of [{key}] has a wrong value", name.get_ref());
                    self.problem(value.span(), message, Some(help));
                }
            }
        }
        found
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it begins.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Something is wrong there.
    pub(super) fn problem(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.problems.push(Problem { span, message, help });
    }

    /// That is wrong within it.
    pub(super) fn problems(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    /// All that is in it, for a table in which any key may stand.
    pub(super) fn all(&self) -> &'a DeTable<'a> {
        self.table
    }

    /// All that is wrong with a table in which any key may stand.
    pub(super) fn finish_any(self) -> Vec<Problem> {
        self.problems
    }

    /// All that is wrong with it: it was read, and what was not asked for is unknown.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(name) {
                let message = format!("unknown key `{name}` in {}", self.name);
                let help = Some(similar(name, &self.asked));
                self.problems.push(Problem { span: key.span(), message, help });
            }
        }
        self.problems
    }
}

/// What was probably meant, else all that is known.
fn similar(name: &str, known: &BTreeSet<&'static str>) -> String {
    let likeness = |known: &&str| match strsim::osa_distance(name, known) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(&name.replace('-', "_"), known),
    };
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|best| likeness(best) >= SIMILAR) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known: {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
    }
}

/// What is there is something else.
pub(super) fn not(wanted: &str, found: &DeValue<'_>) -> String {
    format!("write {wanted}, not {}", article(found.type_str()))
}

fn article(kind: &str) -> String {
    match kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {kind}"),
        false => format!("a {kind}"),
    }
}

/// A text, read by what reads it on the command line as well.
pub(super) fn text<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| match value {
        DeValue::String(text) => read(text),
        other => Err(not("a text in quotes", other)),
    }
}

/// A whole number of that range.
pub(super) fn whole(
    range: std::ops::RangeInclusive<u32>,
) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        let allowed = || format!("write a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value else { return Err(allowed()) };
        let number = u32::from_str_radix(number.as_str(), number.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(allowed)
    }
}

/// True or false.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| not("true or false", value))
}

/// Texts, each read like that.
pub(super) fn texts<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, String> {
    let read = text(read);
    move |value| match value {
        DeValue::Array(all) => all.iter().map(|one| read(one.get_ref())).collect(),
        other => Err(not("a list of texts, such as [\"a\", \"b\"]", other)),
    }
}
