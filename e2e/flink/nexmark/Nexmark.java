package nexmark;

import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.TableDescriptor;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;

/**
 * One query by Flink in this process: once with its answer, which warms the process up, and then once for each line on
 * the standard input, into a sink that drops all rows.
 *
 * <p>Arguments: the file of the query, the directory of the columns, the file that the answer is written to, and the
 * directory of the state if it is to survive. Prints {@code answered}, and then for each run its CPU time in
 * nanoseconds, with all that the process does meanwhile.
 */
public final class Nexmark {
  /** As the published configuration of Nexmark has it, but for one slot, and state on the heap. */
  private static final Map<String, String> SETTINGS =
      Map.ofEntries(
          Map.entry("parallelism.default", "1"),
          Map.entry("taskmanager.numberOfTaskSlots", "1"),
          Map.entry("taskmanager.memory.network.max", "512m"),
          Map.entry("taskmanager.memory.managed.size", "512m"),
          Map.entry("state.backend.type", "hashmap"),
          Map.entry("pipeline.object-reuse", "true"),
          Map.entry("table.exec.mini-batch.enabled", "true"),
          Map.entry("table.exec.mini-batch.allow-latency", "2s"),
          Map.entry("table.exec.mini-batch.size", "50000"),
          Map.entry("table.optimizer.distinct-agg.split.enabled", "true"));

  private final String script;
  private final Configuration configuration = Configuration.fromMap(SETTINGS);

  private Nexmark(Path query, Path data) throws IOException {
    script = Files.readString(query).replace("${data}", data.toString());
  }

  public static void main(String[] args) throws Exception {
    Nexmark query = new Nexmark(Path.of(args[0]), Path.of(args[1]));
    if (args.length > 3) {
      query.configuration.addAll(Configuration.fromMap(surviving(Path.of(args[3]))));
    }
    Files.write(Path.of(args[2]), query.answer());
    System.out.println("answered");
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    while (input.readLine() != null) {
      System.out.println(query.cpuNanos());
    }
    System.exit(0);
  }

  /** What differs if state is to survive: it is in RocksDB, and what is new of it is copied each second. */
  private static Map<String, String> surviving(Path directory) {
    return Map.ofEntries(
        Map.entry("state.backend.type", "rocksdb"),
        Map.entry("state.backend.rocksdb.localdir", directory.resolve("rocksdb").toString()),
        Map.entry("execution.checkpointing.interval", "1s"),
        Map.entry("execution.checkpointing.mode", "EXACTLY_ONCE"),
        Map.entry("execution.checkpointing.incremental", "true"),
        Map.entry("execution.checkpointing.storage", "filesystem"),
        Map.entry("execution.checkpointing.dir", directory.resolve("checkpoints").toUri().toString()));
  }

  /** The rows that remain when all changes have been made, as JSON. */
  private List<String> answer() throws Exception {
    Map<String, Integer> counts = new TreeMap<>();
    try (CloseableIterator<Row> changes = prepared().execute().collect()) {
      while (changes.hasNext()) {
        Row row = changes.next();
        boolean adds = row.getKind() == RowKind.INSERT || row.getKind() == RowKind.UPDATE_AFTER;
        counts.merge(json(row), adds ? 1 : -1, Integer::sum);
      }
    }
    List<String> rows = new ArrayList<>();
    counts.forEach((row, count) -> IntStream.range(0, count).forEach(i -> rows.add(row)));
    return rows;
  }

  private long cpuNanos() throws Exception {
    OperatingSystemMXBean system =
        (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    Table query = prepared();
    long before = system.getProcessCpuTime();
    query.executeInsert(TableDescriptor.forConnector("blackhole").build()).await();
    return system.getProcessCpuTime() - before;
  }

  /** Carries out all statements but the last, which is the query. */
  private Table prepared() {
    StreamExecutionEnvironment streams =
        StreamExecutionEnvironment.getExecutionEnvironment(configuration);
    EnvironmentSettings settings =
        EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build();
    StreamTableEnvironment tables = StreamTableEnvironment.create(streams, settings);
    String[] statements = script.strip().split(";\\s*");
    for (int i = 0; i < statements.length - 1; i++) {
      tables.executeSql(statements[i]);
    }
    return tables.sqlQuery(statements[statements.length - 1]);
  }

  /** Values are numbers, and texts of letters alone. */
  private static String json(Row row) {
    return IntStream.range(0, row.getArity())
        .mapToObj(row::getField)
        .map(value -> value instanceof String text ? '"' + text + '"' : String.valueOf(value))
        .collect(Collectors.joining(",", "[", "]"));
  }
}
