import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.embedded.EmbeddedChannel;
import io.netty.handler.codec.LengthFieldBasedFrameDecoder;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;

/**
 * Netty's LengthFieldBasedFrameDecoder on the same bytes as the other contenders; see ../__init__.py
 * for the questions and answers.
 *
 * A message is a slice of what was read, released at once, or copied to a byte[] of its own, which is
 * what a Python bytes is.
 */
public final class NettyBenchmark {
    private static final int LIMIT = 64 * 1024 * 1024;

    /** Counts the messages, and copies them on request. */
    private static final class Messages extends ChannelInboundHandlerAdapter {
        final boolean copy;
        final List<byte[]> kept = new ArrayList<>();
        long count;
        long bytes;

        Messages(boolean copy) {
            this.copy = copy;
        }

        @Override
        public void channelRead(ChannelHandlerContext context, Object message) {
            ByteBuf frame = (ByteBuf) message;
            count++;
            bytes += frame.readableBytes();
            if (copy) {
                byte[] own = new byte[frame.readableBytes()];
                frame.readBytes(own);
                kept.add(own);
            }
            frame.release();
        }
    }

    private static EmbeddedChannel channel(Messages messages) {
        return new EmbeddedChannel(new LengthFieldBasedFrameDecoder(LIMIT, 0, 4, 0, 4), messages);
    }

    /** The source is in direct memory, as after a read from a socket. */
    private static void split(EmbeddedChannel channel, Messages messages, ByteBuf source, int chunk) {
        messages.kept.clear();
        int size = chunk == 0 ? source.readableBytes() : chunk;
        for (int at = 0; at < source.readableBytes(); at += size) {
            int length = Math.min(size, source.readableBytes() - at);
            channel.writeInbound(source.retainedSlice(at, length));
        }
    }

    private static double measure(double seconds, long perTurn, Runnable work) {
        long began = System.nanoTime(), times = 0;
        while (true) {
            for (int i = 0; i < 8; i++) {
                work.run();
            }
            times += 8;
            long taken = System.nanoTime() - began;
            if (taken >= seconds * 1e9) {
                return (double) taken / (times * perTurn);
            }
        }
    }

    private static String answer(String path, int chunk, double seconds) throws Exception {
        byte[] bytes = Files.readAllBytes(Paths.get(path));
        ByteBuf source = Unpooled.directBuffer(bytes.length).writeBytes(bytes);
        double[] taken = new double[2];
        long count = 0, size = 0;
        for (int variant = 0; variant < 2; variant++) {
            Messages messages = new Messages(variant == 1);
            EmbeddedChannel channel = channel(messages);
            split(channel, messages, source, chunk);
            count = messages.count;
            size = messages.bytes;
            Runnable work = () -> split(channel, messages, source, chunk);
            measure(Math.max(seconds, WARM ? 0 : 2), count, work); // the compiler's share
            taken[variant] = measure(seconds, count, work);
            channel.finishAndReleaseAll();
        }
        WARM = true;
        source.release();
        return String.format(
            "{\"messages\": %d, \"bytes\": %d, \"Netty, slice\": %.3f, \"Netty, byte[]\": %.3f}",
            count, size, taken[0], taken[1]);
    }

    private static boolean WARM = false;

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            if (!words[0].equals("split")) {
                throw new IllegalArgumentException(line);
            }
            System.out.println(
                answer(words[1], Integer.parseInt(words[2]), Double.parseDouble(words[3])));
        }
    }
}
