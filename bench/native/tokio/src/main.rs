//! tokio-util's LengthDelimitedCodec on the same bytes as the other contenders; see ../__init__.py for
//! the questions and answers.
//!
//! Bytes get into the codec's `BytesMut` by a copy, as they do from a socket's buffer; from there each
//! message is a `Bytes` (a counted slice), dropped at once, or copied to a `Vec<u8>` of its own, which
//! is what a Python `bytes` is.

use bytes::{Bytes, BytesMut};
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::time::Instant;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

const LIMIT: usize = 64 * 1024 * 1024;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LIMIT).new_codec()
}

/// Feeds the source in chunks and gives each message to `take`.
fn split(
    codec: &mut LengthDelimitedCodec,
    buffer: &mut BytesMut,
    source: &[u8],
    chunk: usize,
    mut take: impl FnMut(BytesMut),
) {
    let size = if chunk == 0 { source.len() } else { chunk };
    for piece in source.chunks(size) {
        buffer.extend_from_slice(piece);
        while let Some(message) = codec.decode(buffer).expect("a broken frame") {
            take(message);
        }
    }
}

/// Does the work over and over for about so many seconds; gives ns a message.
fn measure(seconds: f64, messages: u64, mut work: impl FnMut()) -> f64 {
    work(); // warm-up
    let began = Instant::now();
    let mut times = 0u64;
    let mut batch = 1u64;
    loop {
        for _ in 0..batch {
            work();
        }
        times += batch;
        let taken = began.elapsed();
        if taken.as_secs_f64() >= seconds {
            return taken.as_nanos() as f64 / (times * messages) as f64;
        }
        batch = (batch * 2).min(1024);
    }
}

fn answer_split(path: &str, chunk: usize, seconds: f64) -> String {
    let source = std::fs::read(path).expect("cannot read the file");
    let (mut messages, mut bytes) = (0u64, 0u64);
    split(&mut codec(), &mut BytesMut::new(), &source, chunk, |message| {
        messages += 1;
        bytes += message.len() as u64;
    });
    let (mut state, mut buffer) = (codec(), BytesMut::with_capacity(64 * 1024));
    let dropped = measure(seconds, messages, || {
        split(&mut state, &mut buffer, black_box(&source), chunk, |message| {
            black_box(message.freeze());
        })
    });
    // The messages of a chunk stand in a Vec until the next one, as in the list that feed() gives.
    let (mut state, mut buffer) = (codec(), BytesMut::with_capacity(64 * 1024));
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let copied = measure(seconds, messages, || {
        kept.clear();
        split(&mut state, &mut buffer, black_box(&source), chunk, |message| {
            kept.push(message.to_vec());
        });
        black_box(&kept);
    });
    format!(
        "{{\"messages\": {messages}, \"bytes\": {bytes}, \"tokio-util, Bytes\": {dropped}, \
         \"tokio-util, Vec\": {copied}}}"
    )
}

fn answer_encode(path: &str, seconds: f64) -> String {
    let source = std::fs::read(path).expect("cannot read the file");
    let mut batch: Vec<Bytes> = Vec::new();
    split(&mut codec(), &mut BytesMut::new(), &source, 0, |message| batch.push(message.freeze()));
    let bytes: usize = batch.iter().map(Bytes::len).sum();
    let mut state = codec();
    let mut encode = |frames: &mut BytesMut| {
        for message in black_box(&batch) {
            state.encode(message.clone(), frames).expect("too large");
        }
        black_box(frames);
    };
    let mut frames = BytesMut::with_capacity(source.len());
    let count = batch.len() as u64;
    let reused = measure(seconds, count, || {
        frames.clear();
        encode(&mut frames);
    });
    assert!(frames == source, "other frames than in the file");
    let fresh = measure(seconds, count, || encode(&mut BytesMut::new()));
    format!(
        "{{\"messages\": {count}, \"bytes\": {bytes}, \"tokio-util, new buffer\": {fresh}, \
         \"tokio-util, reused buffer\": {reused}}}"
    )
}

fn main() {
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        let line = line.expect("cannot read the question");
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["split", path, chunk, seconds] => {
                answer_split(path, chunk.parse().unwrap(), seconds.parse().unwrap())
            }
            ["encode", path, seconds] => answer_encode(path, seconds.parse().unwrap()),
            _ => panic!("what is {line:?}?"),
        };
        writeln!(out, "{answer}").and_then(|()| out.flush()).expect("cannot answer");
    }
}
