//! What is wrong with a file, all at once, each with its line and column.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::errors::Failure;

/// Most of them that are shown: whoever has more mends some and looks again.
const SHOWN_MAX: usize = 20;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What.
    pub message: String,
    /// What is allowed, or probably meant.
    pub help: Option<String>,
}

/// All that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    path: PathBuf,
    text: String,
    all: Vec<Problem>,
}

impl Problems {
    /// Those of a file with that text, in its order.
    pub(super) fn new(path: &Path, text: &str, mut all: Vec<Problem>) -> Self {
        all.sort_by_key(|problem| (problem.span.start, problem.span.end));
        Self { path: path.to_owned(), text: text.to_owned(), all }
    }

    /// Each of them.
    pub fn all(&self) -> &[Problem] {
        &self.all
    }

    /// The line and the column of a problem, both from 1 on; columns are characters.
    pub fn place(&self, problem: &Problem) -> (usize, usize) {
        let before = &self.text[..problem.span.start.min(self.text.len())];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    fn snippet(&self, problem: &Problem) -> String {
        let path = self.path.display().to_string();
        let span = problem.span.start..problem.span.end.max(problem.span.start);
        let mark = AnnotationKind::Primary.span(span);
        let mark = match &problem.help {
            Some(help) => mark.label(help.as_str()),
            None => mark,
        };
        let source = Snippet::source(self.text.as_str()).path(path).annotation(mark);
        let title = Level::ERROR.primary_title(problem.message.as_str());
        Renderer::plain().render(&[title.element(source)])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.all.len() == 1 { "an error" } else { "errors" };
        write!(f, "{} has {what}", self.path.display())?;
        for problem in self.all.iter().take(SHOWN_MAX) {
            write!(f, "\n{}", self.snippet(problem))?;
        }
        match self.all.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::usage(&problems).fix("svcmap init --print shows all that may stand in it")
    }
}
