//! An echo server: tokio-util's `LengthDelimitedCodec`, one thread, replies forwarded as they come.

use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    // The server ends with the program that started it.
    std::thread::spawn(|| {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        std::process::exit(0);
    });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let codec = LengthDelimitedCodec::builder()
                .max_frame_length(16 << 20)
                .new_codec();
            let (sink, stream) = Framed::new(socket, codec).split();
            let _ = stream
                .map(|message| message.map(|bytes| bytes.freeze()))
                .forward(sink)
                .await;
        });
    }
}
