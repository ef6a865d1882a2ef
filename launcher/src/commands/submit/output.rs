//! Results in files: what they are called, and how they get there whole or not at all.

use std::collections::HashSet;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::input::Name;
use super::record::Trouble;

/// How much older a file may seem than it is: the system's clock for files ticks seldom.
const FILE_TIME_ERROR: Duration = Duration::from_millis(20);

/// What a user lets through, as for every other file that a program makes.
const MODE: u32 = 0o666;

/// What the file of a result is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// The name of the input as it was given.
    Path,
    /// Without its folder.
    Name,
    /// Without its folder and its last ending.
    Stem,
    /// The number of the job.
    Number,
}

/// The fields as a user writes them.
const FIELDS: &[(&str, Field)] = &[
    ("path", Field::Path),
    ("name", Field::Name),
    ("stem", Field::Stem),
    ("number", Field::Number),
];

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal += &rest[..at];
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                (literal, rest) = (literal + brace, after);
                continue;
            }
            let field = (brace == "{").then(|| rest.split_once('}')).flatten();
            let Some((word, after)) = field else {
                return Err(format!("a single {brace}; for a brace write {brace}{brace}"));
            };
            let known = FIELDS.iter().find(|(name, _)| *name == word);
            let Some((_, field)) = known else {
                let names: Vec<_> = FIELDS.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!("{{{word}}} is no field; there are {}", names.join(", ")));
            };
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Field(*field));
            rest = after;
        }
        literal += rest;
        if text.is_empty() || literal.ends_with('/') {
            return Err("it names no file".to_owned());
        }
        parts.push(Part::Text(literal));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }
}

impl Template {
    /// Whether it asks for no more than inputs have that are no files.
    pub fn is_for_all(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_) | Part::Field(Field::Number)))
    }

    /// Whether it is another place for other jobs.
    pub fn has_fields(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Field(_)))
    }

    /// Whether no two jobs get the same, whatever they are called.
    fn is_unique(&self) -> bool {
        let fields: Vec<_> = self.0.iter().filter(|part| matches!(part, Part::Field(_))).collect();
        matches!(fields[..], [Part::Field(Field::Number)])
    }

    fn expand(&self, number: u64, name: &Name) -> PathBuf {
        let path = Path::new(std::ffi::OsStr::from_bytes(name.bytes()));
        let mut expanded = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => expanded.extend_from_slice(text.as_bytes()),
                Part::Field(Field::Path) => expanded.extend_from_slice(name.bytes()),
                Part::Field(Field::Name) => {
                    let name = path.file_name().unwrap_or_default();
                    expanded.extend_from_slice(name.as_bytes());
                }
                Part::Field(Field::Stem) => {
                    let stem = path.file_stem().unwrap_or_default();
                    expanded.extend_from_slice(stem.as_bytes());
                }
                Part::Field(Field::Number) => {
                    expanded.extend_from_slice(number.to_string().as_bytes());
                }
            }
        }
        OsString::from_vec(expanded).into()
    }
}

/// The file of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it replaces what is there.
    pub replaces: bool,
}

/// Finds the place of each result.
pub struct Outputs {
    template: Template,
    overwrite: bool,
    /// When the batch began that is gone on with.
    since: Option<SystemTime>,
    /// Names that were given away, as far as that has to be known; of each 8 bytes.
    taken: HashSet<u64>,
}

impl Outputs {
    /// Places by that template, for a batch that goes on since then.
    pub fn new(template: Template, overwrite: bool, since: Option<SystemTime>) -> Self {
        Self { template, overwrite, since, taken: HashSet::new() }
    }

    /// Keeps a place for a job, and says which.
    ///
    /// # Errors
    /// If another job has it.
    pub fn claim(&mut self, number: u64, name: &Name) -> Result<PathBuf, Trouble> {
        let path = self.template.expand(number, name);
        let is_new = self.template.is_unique() || self.taken.insert(hash(&path));
        if is_new {
            return Ok(path);
        }
        Err(Trouble::with(&path, "the result of an input before goes there; nothing was sent"))
    }

    /// The file of a result, unless something is there that is to stay. A batch that was killed may
    /// have written its last file and not said so in the joblog: what is as new as it is replaced.
    ///
    /// # Errors
    /// If that is so.
    pub fn check(&self, path: PathBuf) -> Result<Output, Trouble> {
        // Whatever else is wrong shows when it is written.
        let Ok(there) = std::fs::symlink_metadata(&path) else {
            return Ok(Output { path, replaces: self.overwrite });
        };
        let written_at = there.modified().ok().map(|at| at + FILE_TIME_ERROR);
        let is_ours = self.since.is_some_and(|since| written_at.is_some_and(|at| at >= since));
        if !self.overwrite && !is_ours {
            Err(Trouble::with(&path, "exists already; nothing was sent (see --overwrite)"))
        } else if !there.is_file() && !there.is_symlink() {
            Err(Trouble::with(&path, "is there and no file; nothing was sent"))
        } else {
            Ok(Output { path, replaces: true })
        }
    }
}

/// The same for equal values, in every process of this build.
pub fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Writes a file, whole or not at all, and makes its folders.
///
/// It is not synced: that costs some milliseconds for each file, and only helps when the machine
/// itself fails, not when this process does.
///
/// # Errors
/// In the system's words; [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if there is one that
/// is not to be replaced.
pub fn write_whole(output: &Output, bytes: &[u8]) -> std::io::Result<()> {
    let path = &output.path;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(".svcmap-")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    match output.replaces {
        true => file.persist(path)?,
        false => file.persist_noclobber(path)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, number: u64, name: &str) -> String {
        let template: Template = template.parse().unwrap();
        template.expand(number, &Name::File(name.into())).display().to_string()
    }

    #[test]
    fn fields_stand_for_parts_of_the_name() {
        let name = "in/a.tar.gz";
        assert_eq!(expanded("out/{name}.xz", 1, name), "out/a.tar.gz.xz");
        assert_eq!(expanded("out/{stem}", 1, name), "out/a.tar");
        assert_eq!(expanded("{path}.out", 1, name), "in/a.tar.gz.out");
        assert_eq!(expanded("{{{number}}}-{number}", 12, name), "{12}-12");
        let odd = Name::File(OsString::from_vec(b"d/\xff\n.x".to_vec()).into());
        let path = "o/{stem}".parse::<Template>().unwrap().expand(1, &odd);
        assert_eq!(path.as_os_str().as_bytes(), b"o/\xff\n");
    }

    #[test]
    fn what_is_no_template_says_what_would_be() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(error("{nam}"), "{nam} is no field; there are {path}, {name}, {stem}, {number}");
        assert_eq!(error("a{"), "a single {; for a brace write {{");
        assert_eq!(error("a}b"), "a single }; for a brace write }}");
        assert_eq!((error(""), error("out/")), (error("/"), error("{name}/")));
    }

    #[test]
    fn no_two_jobs_get_the_same_place() {
        let outputs = |text: &str| Outputs::new(text.parse().unwrap(), true, None);
        let (a, b) = (Name::File("x/a".into()), Name::File("y/a".into()));
        let mut by_name = outputs("{name}");
        assert!(by_name.claim(1, &a).is_ok());
        let taken = by_name.claim(2, &b).unwrap_err().to_string();
        assert!(taken.starts_with("a: the result of an input before"), "{taken}");
        let mut by_number = outputs("{number}.out");
        assert!(by_number.claim(1, &a).is_ok() && by_number.claim(2, &a).is_ok());
        assert!(by_number.taken.is_empty());
        // The first of 11 and the eleventh of 1.
        let mut both = outputs("{number}{name}");
        assert!(both.claim(1, &Name::File("1".into())).is_ok());
        assert!(both.claim(11, &Name::File("".into())).is_err());
    }

    #[test]
    fn a_file_is_written_whole_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        let new = Output { path: path.clone(), replaces: false };
        let again = Output { replaces: true, ..new.clone() };
        write_whole(&new, b"one").unwrap();
        let error = write_whole(&new, b"two").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write_whole(&again, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let others = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(others, 1, "nothing is left beside it");
        let no_file = Output { path: folder.path().to_owned(), ..again };
        assert!(write_whole(&no_file, b"").is_err());
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "").unwrap();
        let check = |overwrite, since, path: &Path| {
            Outputs::new("{name}".parse().unwrap(), overwrite, since).check(path.to_owned())
        };
        assert!(check(false, None, &there).unwrap_err().what.starts_with("exists already"));
        assert!(check(true, None, &there).unwrap().replaces);
        assert!(!check(false, None, &folder.path().join("new")).unwrap().replaces);
        for none in ["/dev/null", "/tmp"] {
            assert!(check(true, None, Path::new(none)).unwrap_err().what.contains("no file"));
        }
        // What an interrupted batch may have written itself does not.
        let written_at = there.metadata().unwrap().modified().unwrap();
        assert!(check(false, Some(written_at), &there).unwrap().replaces);
        let later = written_at + Duration::from_secs(1);
        assert!(check(false, Some(later), &there).is_err());
    }
}
