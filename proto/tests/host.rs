//! A machine stays the same, whatever happens to this process. Alone in its process, as it takes the
//! files of all of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use svcmap_proto::io::{host_id, host_id_doubt};

#[test]
fn a_process_that_is_out_of_files_is_still_on_the_same_machine() {
    let before = (host_id(), host_id_doubt());
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let after = (host_id(), host_id_doubt());
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(before, after);
}
