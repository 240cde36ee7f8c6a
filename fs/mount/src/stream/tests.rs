use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::server::tests::{request, server};

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (ours, theirs)
}

#[test]
fn requests_in_one_stream_are_all_answered() {
    let (_runtime, server) = server();
    let (mut agent, host) = pair();
    let clone = host.try_clone().unwrap();
    let serving = std::thread::spawn(move || serve(&server, host, clone, 3));
    let count = 50;
    let mut sent = Vec::new();
    for unique in 1..=count {
        sent.extend(request(3, unique, 1, &[0; 16]));
        sent.extend(request(2, 0, 1, &[0; 8])); // a forget, which has no answer
    }
    for part in sent.chunks(7) {
        agent.write_all(part).unwrap();
    }
    let mut answered = Vec::new();
    for _ in 0..count {
        let mut answer = [0; 120];
        agent.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..8], [120, 0, 0, 0, 0, 0, 0, 0]);
        answered.push(u64::from_le_bytes(answer[8..16].try_into().unwrap()));
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=count).collect::<Vec<_>>());
    agent.shutdown(std::net::Shutdown::Write).unwrap();
    serving.join().unwrap().unwrap();
    assert_eq!(agent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_stream_out_of_step_is_given_up() {
    for (bytes, code) in [
        (vec![39, 0, 0, 0], Code::DataLoss),
        (vec![0xff; 4], Code::DataLoss),
        (vec![40, 0], Code::DataLoss), // ends in the size
        (request(3, 1, 1, &[])[..30].to_vec(), Code::DataLoss), // ends in the header
    ] {
        let (_runtime, server) = server();
        let (mut agent, host) = pair();
        let clone = host.try_clone().unwrap();
        agent.write_all(&bytes).unwrap();
        agent.shutdown(std::net::Shutdown::Write).unwrap();
        let error = serve(&server, host, clone, 2).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}
