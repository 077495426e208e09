package nexmark;

import java.io.IOException;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.apache.flink.api.connector.source.Boundedness;
import org.apache.flink.api.connector.source.ReaderOutput;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.api.connector.source.SourceReader;
import org.apache.flink.api.connector.source.SourceReaderContext;
import org.apache.flink.api.connector.source.SourceSplit;
import org.apache.flink.api.connector.source.SplitEnumerator;
import org.apache.flink.api.connector.source.SplitEnumeratorContext;
import org.apache.flink.core.io.InputStatus;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;

/**
 * Rows from the files of their columns, mapped into memory, in order and one after the other: the cheapest source that
 * Flink can have. It has one split, for one reader.
 */
public final class ColumnSource implements Source<RowData, ColumnSource.Rows, Boolean> {
  enum Kind {
    INTEGER,
    INSTANT,
    TEXT
  }

  record Column(String file, Kind kind) implements Serializable {}

  /** The one split: all rows from this one on. */
  record Rows(long first) implements SourceSplit {
    @Override
    public String splitId() {
      return "all";
    }
  }

  private final List<Column> columns;

  ColumnSource(List<Column> columns) {
    this.columns = List.copyOf(columns);
  }

  @Override
  public Boundedness getBoundedness() {
    return Boundedness.BOUNDED;
  }

  @Override
  public SourceReader<RowData, Rows> createReader(SourceReaderContext context) {
    return new Reader(context);
  }

  @Override
  public SplitEnumerator<Rows, Boolean> createEnumerator(SplitEnumeratorContext<Rows> context) {
    return new Enumerator(context, false);
  }

  @Override
  public SplitEnumerator<Rows, Boolean> restoreEnumerator(
      SplitEnumeratorContext<Rows> context, Boolean assigned) {
    return new Enumerator(context, assigned);
  }

  @Override
  public SimpleVersionedSerializer<Rows> getSplitSerializer() {
    return new SimpleVersionedSerializer<>() {
      @Override
      public int getVersion() {
        return 1;
      }

      @Override
      public byte[] serialize(Rows rows) {
        return ByteBuffer.allocate(Long.BYTES).putLong(rows.first()).array();
      }

      @Override
      public Rows deserialize(int version, byte[] bytes) {
        return new Rows(ByteBuffer.wrap(bytes).getLong());
      }
    };
  }

  @Override
  public SimpleVersionedSerializer<Boolean> getEnumeratorCheckpointSerializer() {
    return new SimpleVersionedSerializer<>() {
      @Override
      public int getVersion() {
        return 1;
      }

      @Override
      public byte[] serialize(Boolean assigned) {
        return new byte[] {(byte) (assigned ? 1 : 0)};
      }

      @Override
      public Boolean deserialize(int version, byte[] bytes) {
        return bytes[0] == 1;
      }
    };
  }

  private static final class Enumerator implements SplitEnumerator<Rows, Boolean> {
    private final SplitEnumeratorContext<Rows> context;
    private boolean assigned;

    Enumerator(SplitEnumeratorContext<Rows> context, boolean assigned) {
      this.context = context;
      this.assigned = assigned;
    }

    @Override
    public void start() {}

    @Override
    public void handleSplitRequest(int reader, String host) {
      if (assigned) {
        context.signalNoMoreSplits(reader);
      } else {
        assigned = true;
        context.assignSplit(new Rows(0), reader);
      }
    }

    @Override
    public void addSplitsBack(List<Rows> splits, int reader) {
      throw new IllegalStateException("a measured run does not restart");
    }

    @Override
    public void addReader(int reader) {}

    @Override
    public Boolean snapshotState(long checkpoint) {
      return assigned;
    }

    @Override
    public void close() {}
  }

  private final class Reader implements SourceReader<RowData, Rows> {
    private final SourceReaderContext context;
    private final ColumnFile[] files = new ColumnFile[columns.size()];
    private long rows = Long.MAX_VALUE;
    private long next;
    private boolean assigned;
    private boolean ended;

    Reader(SourceReaderContext context) {
      this.context = context;
      try {
        for (int i = 0; i < files.length; i++) {
          files[i] = ColumnFile.open(columns.get(i));
          rows = Math.min(rows, files[i].rows());
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    @Override
    public void start() {
      context.sendSplitRequest();
    }

    @Override
    public InputStatus pollNext(ReaderOutput<RowData> output) {
      if (!assigned) {
        return ended ? InputStatus.END_OF_INPUT : InputStatus.NOTHING_AVAILABLE;
      }
      if (next == rows) {
        return InputStatus.END_OF_INPUT;
      }
      GenericRowData row = new GenericRowData(files.length);
      for (int i = 0; i < files.length; i++) {
        row.setField(i, files[i].value((int) next));
      }
      next++;
      output.collect(row);
      return InputStatus.MORE_AVAILABLE;
    }

    @Override
    public List<Rows> snapshotState(long checkpoint) {
      return assigned ? List.of(new Rows(next)) : List.of();
    }

    @Override
    public CompletableFuture<Void> isAvailable() {
      return CompletableFuture.completedFuture(null);
    }

    @Override
    public void addSplits(List<Rows> splits) {
      next = splits.get(0).first();
      assigned = true;
    }

    @Override
    public void notifyNoMoreSplits() {
      ended = true;
    }

    @Override
    public void close() {}
  }
}
