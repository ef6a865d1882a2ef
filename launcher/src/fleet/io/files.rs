//! Log files, one for each process: a full one is renamed, and only so many are kept.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A log file that is written to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    keep: u32,
}

impl LogFile {
    /// That of a process, in a folder that is made if it is missed. It is gone on with.
    pub(super) fn open(dir: &Path, name: &str, bytes_max: u64, keep: u32) -> std::io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{}.log", name.replace('/', "-")));
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, bytes_max, keep })
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) -> std::io::Result<()> {
        let more = line.len() as u64 + 1;
        if self.bytes > 0 && self.bytes + more > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.bytes += more;
        Ok(())
    }

    /// `x.log` becomes `x.log.1`, that becomes `x.log.2`, and so on; the last one goes.
    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |number: u32| self.path.with_extension(format!("log.{number}"));
        let if_there = |done: std::io::Result<()>| match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        // After a failure it may be renamed already, and only the new one be missing.
        if self.path.exists() {
            for number in (1..self.keep).rev() {
                if_there(fs::rename(numbered(number), numbered(number + 1)))?;
            }
            match self.keep {
                0 => if_there(fs::remove_file(&self.path))?,
                _ => if_there(fs::rename(&self.path, numbered(1)))?,
            }
        }
        (self.file, self.bytes) = (append(&self.path)?, 0);
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_only_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("log");
        let mut log = LogFile::open(&dir, "resize/1", 10, 2).unwrap();
        ["one", "two", "three", "four", "five", "six"].iter().for_each(|l| log.line(l).unwrap());
        // Three of them once more: it goes on with what is there.
        let mut log = LogFile::open(&dir, "resize/1", 10, 2).unwrap();
        log.line("7").unwrap();
        let read = |end: &str| fs::read_to_string(dir.join(format!("resize-1.log{end}"))).ok();
        assert_eq!(read(""), Some("six\n7\n".to_owned()));
        assert_eq!(read(".1"), Some("four\nfive\n".to_owned()));
        assert_eq!(read(".2"), Some("three\n".to_owned()));
        assert_eq!(read(".3"), None);
    }
}
