package nexmark;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.data.binary.BinaryStringData;

/**
 * A column in a file: numbers of eight bytes in {@code .i64}, little-endian; texts in {@code .dat}, and where each begins
 * and the last ends in {@code .off}, as numbers of four bytes.
 */
interface ColumnFile {
  int rows();

  /** The value of a row, as Flink has it inside. */
  Object value(int row);

  static ColumnFile open(ColumnSource.Column column) throws IOException {
    return switch (column.kind()) {
      case INTEGER -> new Integers(map(column.file() + ".i64").asLongBuffer());
      case INSTANT -> new Instants(map(column.file() + ".i64").asLongBuffer());
      case TEXT -> new Texts(map(column.file() + ".off").asIntBuffer(), map(column.file() + ".dat"));
    };
  }

  private static ByteBuffer map(String file) throws IOException {
    try (FileChannel channel = FileChannel.open(Path.of(file))) {
      ByteBuffer bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
      return bytes.order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  record Integers(LongBuffer values) implements ColumnFile {
    @Override
    public int rows() {
      return values.capacity();
    }

    @Override
    public Object value(int row) {
      return values.get(row);
    }
  }

  /** Milliseconds since 1970. */
  record Instants(LongBuffer values) implements ColumnFile {
    @Override
    public int rows() {
      return values.capacity();
    }

    @Override
    public Object value(int row) {
      return TimestampData.fromEpochMillis(values.get(row));
    }
  }

  record Texts(IntBuffer offsets, ByteBuffer bytes) implements ColumnFile {
    @Override
    public int rows() {
      return offsets.capacity() - 1;
    }

    @Override
    public Object value(int row) {
      int begin = offsets.get(row);
      byte[] text = new byte[offsets.get(row + 1) - begin];
      bytes.get(begin, text);
      return BinaryStringData.fromBytes(text);
    }
  }
}
