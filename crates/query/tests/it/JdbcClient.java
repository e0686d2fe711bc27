import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;

/** The PostgreSQL JDBC driver as DBeaver and others use it: `java JdbcClient.java PORT`. */
public class JdbcClient {
    static void same(Object got, Object want) {
        if (!String.valueOf(got).equals(String.valueOf(want))) throw new AssertionError("got " + got + ", want " + want);
    }

    /** One column of all rows. */
    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        rows.close();
        return values;
    }

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("user", "conurb");
        // From the second time on a statement is prepared on the server, and its answers are binary.
        properties.put("prepareThreshold", "1");
        try (Connection c = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + arguments[0] + "/conurb", properties)) {
            metadata(c.getMetaData());
            prepared(c);
            cursors(c);
            sessions(c);
        }
        System.out.println("ok jdbc");
    }

    static void metadata(DatabaseMetaData m) throws SQLException {
        same(m.getDatabaseProductName() + " " + m.getDatabaseMajorVersion(), "PostgreSQL 16");
        same(column(m.getCatalogs(), "TABLE_CAT"), "[conurb]");
        same(column(m.getSchemas(), "TABLE_SCHEM"), "[information_schema, pg_catalog, public]");
        String[] kinds = {"TABLE", "VIEW"};
        same(column(m.getTables(null, "public", "%", kinds), "TABLE_NAME"), "[AirQualityObserved, AirQualityObserved_history, Asset_history, Gone_history, Probe_history, Road, Sensor_history]");
        List<String> columns = new ArrayList<>();
        try (ResultSet r = m.getColumns(null, "public", "AirQualityObserved", "%")) {
            while (r.next()) columns.add(r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME") + " " + r.getString("IS_NULLABLE") + " " + r.getString("REMARKS"));
        }
        same(columns.get(0), "id text NO null");
        same(columns.get(6), "location geometry YES https://uri.etsi.org/ngsi-ld/location");
        if (!columns.contains("pm25 float8 YES unit GQ; https://example.org/pm25")) throw new AssertionError(columns);
        same(column(m.getPrimaryKeys(null, "public", "AirQualityObserved"), "COLUMN_NAME"), "[id]");
        same(column(m.getIndexInfo(null, "public", "AirQualityObserved", true, true), "INDEX_NAME"), "[AirQualityObserved_pkey]");
        same(column(m.getBestRowIdentifier(null, "public", "AirQualityObserved", 0, true), "COLUMN_NAME"), "[id]");
        same(column(m.getImportedKeys(null, "public", "AirQualityObserved"), "FK_NAME"), "[]");
        same(column(m.getExportedKeys(null, "public", "AirQualityObserved"), "FK_NAME"), "[]");
        if (!column(m.getTypeInfo(), "TYPE_NAME").containsAll(List.of("int4", "text", "timestamptz", "geometry"))) throw new AssertionError("types");
        same(column(m.getFunctions(null, "public", "st_dwithin"), "FUNCTION_NAME"), "[st_dwithin]");
        m.getFunctionColumns(null, "public", "st_x", "%").close();
        m.getProcedures(null, "public", "%").close();
        m.getTablePrivileges(null, "public", "Road").close();
        m.getColumnPrivileges(null, "public", "Road", "id").close();
        m.getUDTs(null, "public", "%", null).close();
        m.getClientInfoProperties().close();
        if (m.getMaxColumnNameLength() != 63 || m.getSQLKeywords().isEmpty()) throw new AssertionError("limits");
    }

    static void prepared(Connection c) throws SQLException {
        String sql = "select id, pm25, observed_at, calibrated, location, 1::smallint, 2::int, 3::bigint, 1.5::real, date '2014-01-01',"
            + " 1.25::numeric(10,2) from \"AirQualityObserved\" where pm25 > ? and observed_at > ? and id like ? order by id desc";
        try (PreparedStatement s = c.prepareStatement(sql)) {
            ResultSetMetaData m = s.getMetaData();
            same(m.getColumnTypeName(5) + " " + m.getColumnTypeName(3) + " " + m.getColumnName(2), "geometry timestamptz pm25");
            for (int i = 0; i < 4; i++) {
                s.setDouble(1, 40);
                s.setTimestamp(2, Timestamp.from(Instant.parse("2013-01-01T00:00:00Z")));
                s.setString(3, "urn:%");
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    same(r.getString(1), "urn:ngsi-ld:AirQualityObserved:gucheng");
                    same(r.getDouble(2) + " " + r.getTimestamp(3).toInstant() + " " + r.getObject(4), "120.5 2014-01-02T00:00:00Z null");
                    same(r.getObject(5), "0101000020E6100000CDCCCCCCCC0C5D403333333333F34340");
                    same(r.getShort(6) + " " + r.getInt(7) + " " + r.getLong(8) + " " + r.getFloat(9), "1 2 3 1.5");
                    same(r.getDate(10) + " " + r.getBigDecimal(11), "2014-01-01 1.25");
                    same(r.next(), true);
                    same(r.next(), false);
                }
            }
        }
        String types = "select ?::int, ?::bigint, ?::double precision, ?::text, ?::boolean, ?::timestamptz, ?::date, ?::numeric, ?::int, ?::text";
        try (PreparedStatement s = c.prepareStatement(types)) {
            for (int i = 0; i < 3; i++) {
                s.setInt(1, 1);
                s.setLong(2, 2);
                s.setDouble(3, 3.5);
                s.setString(4, "天坛");
                s.setBoolean(5, true);
                s.setTimestamp(6, new Timestamp(0));
                s.setDate(7, Date.valueOf("2014-01-01"));
                s.setBigDecimal(8, new BigDecimal("1.25"));
                s.setNull(9, Types.INTEGER);
                s.setNull(10, Types.VARCHAR);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    same(r.getInt(1) + " " + r.getLong(2) + " " + r.getDouble(3) + " " + r.getString(4) + " " + r.getBoolean(5), "1 2 3.5 天坛 true");
                    same(r.getTimestamp(6).getTime() + " " + r.getDate(7), "0 2014-01-01");
                    same(r.getBigDecimal(8).compareTo(new BigDecimal("1.25")), 0);
                    same(r.getObject(9) + " " + r.getObject(10), "null null");
                }
            }
        }
        try (PreparedStatement s = c.prepareStatement("select count(*) from \"AirQualityObserved\" where observed_at >= ?")) {
            s.setObject(1, OffsetDateTime.parse("2014-01-02T00:00:00Z"));
            same(column(s.executeQuery(), "count"), "[2]");
        }
    }

    static void cursors(Connection c) throws SQLException {
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
            s.setFetchSize(3);
            long sum = 0;
            try (ResultSet r = s.executeQuery("select * from generate_series(1, 10)")) {
                while (r.next()) sum += r.getLong(1);
            }
            same(sum, 55);
        }
        c.commit();
        c.setAutoCommit(true);
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY)) {
            ResultSet r = s.executeQuery("select * from generate_series(1, 10)");
            r.last();
            same(r.getRow(), 10);
            s.setMaxRows(2);
            same(column(s.executeQuery("select id from \"AirQualityObserved\" order by id"), "id").size(), 2);
            s.execute("select 1 as a; select 2 as a");
            same(column(s.getResultSet(), "a"), "[1]");
            s.getMoreResults();
            same(column(s.getResultSet(), "a"), "[2]");
        }
    }

    static void sessions(Connection c) throws SQLException {
        same(c.isValid(5) + " " + c.getSchema() + " " + c.getCatalog(), "true public conurb");
        c.setReadOnly(true);
        c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        c.getTransactionIsolation();
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            try {
                s.executeQuery("select count(*) from generate_series(1, 100000000000) g where g % 7 = 3");
                throw new AssertionError("it was not cancelled");
            } catch (SQLException e) {
                same(e.getSQLState(), "57014");
            }
        }
        try (Statement s = c.createStatement()) {
            try {
                s.executeQuery("select * from nope");
                throw new AssertionError("there is no such table");
            } catch (SQLException e) {
                same(e.getSQLState(), "42P01");
            }
            same(column(s.executeQuery("select 7 as a"), "a"), "[7]");
        }
    }
}
