package nexmark;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.ScanTableSource;
import org.apache.flink.table.connector.source.SourceProvider;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.logical.RowType;

/**
 * The connector {@code columns}: a table is a directory's files that begin with its name, and has the columns that its
 * statement declares, of those that are there.
 */
public final class ColumnTables implements DynamicTableSourceFactory {
  private static final ConfigOption<String> DIRECTORY =
      ConfigOptions.key("directory").stringType().noDefaultValue();

  @Override
  public String factoryIdentifier() {
    return "columns";
  }

  @Override
  public Set<ConfigOption<?>> requiredOptions() {
    return Set.of(DIRECTORY);
  }

  @Override
  public Set<ConfigOption<?>> optionalOptions() {
    return Set.of();
  }

  @Override
  public DynamicTableSource createDynamicTableSource(Context context) {
    String directory = FactoryUtil.createTableFactoryHelper(this, context).getOptions().get(DIRECTORY);
    String table = context.getObjectIdentifier().getObjectName();
    RowType type = (RowType) context.getPhysicalRowDataType().getLogicalType();
    List<ColumnSource.Column> columns = new ArrayList<>();
    for (RowType.RowField field : type.getFields()) {
      columns.add(column(directory + "/" + table + "." + field.getName(), field));
    }
    return new Table(new ColumnSource(columns));
  }

  private static ColumnSource.Column column(String file, RowType.RowField field) {
    return switch (field.getType().getTypeRoot()) {
      case BIGINT -> new ColumnSource.Column(file, ColumnSource.Kind.INTEGER);
      case TIMESTAMP_WITHOUT_TIME_ZONE -> new ColumnSource.Column(file, ColumnSource.Kind.INSTANT);
      case VARCHAR -> new ColumnSource.Column(file, ColumnSource.Kind.TEXT);
      default -> throw new IllegalArgumentException("no column can be " + field.getType());
    };
  }

  private record Table(ColumnSource source) implements ScanTableSource {
    @Override
    public ChangelogMode getChangelogMode() {
      return ChangelogMode.insertOnly();
    }

    @Override
    public ScanRuntimeProvider getScanRuntimeProvider(ScanContext context) {
      return SourceProvider.of(source);
    }

    @Override
    public DynamicTableSource copy() {
      return this;
    }

    @Override
    public String asSummaryString() {
      return "columns";
    }
  }
}
