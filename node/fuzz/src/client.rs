//! What clients say: any bytes are requests or end the connection, and what a member answers are frames that a client
//! can read, in the order of its requests.

use crate::machine::{Machine, founding};
use crate::peers::frames::ClientFrames;
use pharos_jute::{
    ConnectRequest, ConnectResponse, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response, xid,
};
use pharos_replica::{ConnId, Output};
use pharos_znode::{Command, Level, Op};
use std::net::{IpAddr, Ipv4Addr};

const LIMIT: usize = 4096;
const CONN: ConnId = ConnId(1);

pub(crate) fn run(data: &[u8]) {
    let Some((&pieces, data)) = data.split_first() else { return };
    let whole = frames(data, data.len().max(1));
    let cut = frames(data, usize::from(pieces).max(1));
    assert_eq!(whole, cut, "the same frames, however they arrive");
    whole.iter().for_each(|frame| decode(frame));
    serve(&whole);
}

fn frames(data: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut splitter = ClientFrames::new(LIMIT);
    let mut out = Vec::new();
    for piece in data.chunks(piece) {
        if splitter.feed(piece, |frame| out.push(frame.to_vec())).is_err() {
            break;
        }
        assert!(splitter.pending().len() < 4 + LIMIT, "no more than a frame is held");
    }
    out
}

/// Each kind of record that begins a frame, and back.
fn decode(frame: &[u8]) {
    let mut again = Vec::new();
    if let Ok(request) = ConnectRequest::decode(frame) {
        request.encode(&mut again);
        assert_eq!(ConnectRequest::decode(&again), Ok(request));
    }
    again.clear();
    if let Ok(response) = ConnectResponse::decode(frame) {
        response.encode(&mut again);
        assert_eq!(ConnectResponse::decode(&again), Ok(response));
    }
    again.clear();
    let mut reader = Reader::new(frame);
    let Ok(header) = RequestHeader::decode(&mut reader) else { return };
    if let Ok(request) = Request::decode(header.op, reader.rest()) {
        request.encode(&mut again);
        assert_eq!(Request::decode(header.op, &again).as_ref(), Ok(&request), "a request reads back");
        if let Some(op) = Op::from_request(&request, Level::NEWEST) {
            Command::of_ensemble(op).encode(&mut Vec::new());
        }
    }
    again.clear();
    if let Some(op) = OpCode::from_i32(header.op)
        && let Ok(response) = Response::decode(op, reader.rest())
    {
        response.encode(&mut again);
        assert_eq!(Response::decode(op, &again).as_ref(), Ok(&response), "a response reads back");
    }
}

/// A member of one hears them on one connection.
fn serve(frames: &[Vec<u8>]) {
    let mut machine = Machine::found(1, &founding(1));
    machine.start();
    machine.lead();
    machine.replica().client_open(CONN, IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut said = Vec::new();
    for frame in frames {
        machine.replica().client_frame(CONN, frame);
        hear(&mut machine, 1, &mut said);
    }
    hear(&mut machine, 20, &mut said);
    let mut answers = ClientFrames::new(usize::MAX);
    let mut requests = frames.iter().skip(1).filter_map(|frame| xid_of(frame));
    let mut first = true;
    let fed = answers.feed(&said, |answer| {
        if std::mem::take(&mut first) {
            ConnectResponse::decode(answer).expect("the first answer is to the handshake");
            return;
        }
        let mut reader = Reader::new(answer);
        let header = ReplyHeader::decode(&mut reader).expect("an answer has a header");
        if header.xid != xid::NOTIFICATION {
            let asked = requests.by_ref().find(|xid| *xid == header.xid);
            assert!(asked.is_some(), "answer {header:?} is not to the next requests");
        }
    });
    assert!(fed.is_ok() && answers.pending().is_empty(), "a member writes whole frames");
}

fn hear(machine: &mut Machine, ms: u64, said: &mut Vec<u8>) {
    for output in machine.turn(ms) {
        match output {
            Output::Fatal { reason } => panic_on(&reason),
            Output::CloseClient { last_words, .. } => said.extend_from_slice(&last_words),
            _ => {}
        }
    }
    while let Some(conn) = machine.replica().next_dirty() {
        if let Some(buffer) = machine.replica().buffer(conn) {
            said.extend_from_slice(&buffer.split());
        }
        machine.replica().written(conn);
    }
}

#[allow(clippy::panic, reason = "this is how a target says what it has found")]
fn panic_on(reason: &str) -> ! {
    panic!("what a client sent ends the member: {reason}");
}

fn xid_of(frame: &[u8]) -> Option<i32> {
    RequestHeader::decode(&mut Reader::new(frame)).ok().map(|header| header.xid)
}
