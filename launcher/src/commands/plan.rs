//! `svcmap plan`: is a topology file right, and what would it change?

use std::path::Path;
use std::process::ExitCode;

use crate::cli::PlanArgs;
use crate::errors::{Error, print_out};
use crate::fleet::io::client;
use crate::fleet::wire::Process;
use crate::io::stdout_columns;
use crate::text::{printable_path, some_of};
use crate::topology::io::{Loaded, check_programs, load, parse};
use crate::topology::{FILE_NAME, changes, plan_text};

/// The exit status for `--exit-code` if something would change, as `terraform plan` has it.
const CHANGES: u8 = 2;

/// Prints what would change.
///
/// # Errors
/// If the file is wrong, or names programs that are not here.
pub fn run(args: &PlanArgs) -> Result<ExitCode, Error> {
    let Loaded { path, topology: new, .. } = load(&args.file)?;
    let running = client::running_topology(&path)?;
    let mut old = running.as_ref().map(|running| parse(&path, &path, &running.text)).transpose()?;
    if let (Some(old), Some(running)) = (&mut old, &running) {
        let former = parse(&path, &path, &running.former)?;
        for name in &running.reverted {
            if let (Some(service), Some(former)) =
                (old.services.get_mut(name), former.services.get(name))
            {
                service.worker = former.worker.clone();
            }
        }
        for (name, service) in &mut old.services {
            service.instances = running.instances.get(name).copied().unwrap_or(service.instances);
        }
    }
    let changes = changes(old.as_ref(), &new);
    let is_changed = changes.iter().any(|change| change.sign != ' ');
    let away = match &running {
        // One that has ended meanwhile keeps nobody.
        Some(_) => away(&client::processes(Some(&path)).unwrap_or_default().1),
        None => String::new(),
    };
    let checked = check_programs(&new);
    let next = match &running {
        _ if checked.is_err() => String::new(),
        Some(_) if !is_changed && away.is_empty() => {
            "nothing to do: svcmap up keeps it as it is\n".to_owned()
        }
        Some(_) if !is_changed => "nothing to apply\n".to_owned(),
        Some(running) => format!("next: kill -HUP {}\n", running.pid),
        None if args.file == Path::new(FILE_NAME) => "next: svcmap up\n".to_owned(),
        None => format!("next: svcmap up {}\n", printable_path(&args.file)),
    };
    print_out(&format!("{}{away}{next}", plan_text(&changes, stdout_columns())))?;
    checked?;
    Ok(if args.exit_code && is_changed { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
}

/// Who is not there, whatever the file says.
fn away(processes: &[Process]) -> String {
    let away = processes.iter().filter(|process| process.is_away());
    let away: Vec<&str> = away.map(|process| process.name.as_str()).collect();
    match away.len() {
        0 => String::new(),
        _ => format!("away: {}: svcmap ps\n", some_of(&away)),
    }
}
