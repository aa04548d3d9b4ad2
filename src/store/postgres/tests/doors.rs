//! Coming in: what a URL may lead to, and what is said of it.

use super::*;

/// What is said when connecting fails, which never has the password.
async fn refused(url: &str) -> String {
    let said = Shared::connect(url, "process", "ws://broker:5327", TERM_MS).await.unwrap_err();
    let said = format!("{said} {said:?}");
    assert!(!said.contains("p@ss") && !said.contains("p%40ss"), "{said}");
    said
}

/// The password as a URL has it.
fn encoded() -> String {
    server::PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_password_lets_in_and_is_never_shown() {
    let Some(database) = Database::new() else { return };
    let with = |password: &str| database.url.replace("leasehold@", &format!("guarded:{password}@"));
    database.sql("GRANT CREATE ON SCHEMA public TO guarded");
    let shared = Shared::connect(&with(&encoded()), "process", "ws://broker:5327", TERM_MS).await.unwrap();
    assert_eq!(shared.name(), with("").replace(":@", "@"));
    assert!(!format!("{shared:?}").contains("p@ss"), "{shared:?}");
    let said = refused(&with("p@ss-but-another").replace("p@ss", "p%40ss")).await;
    assert!(said.contains("password authentication failed") && said.contains("PGPASSWORD"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_what_to_do() {
    let Some(database) = Database::new() else { return };
    let elsewhere = database.url.replace(database.name(), "nowhere");
    let said = refused(&elsewhere).await;
    assert!(said.contains("does not exist; create it first"), "{said}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = database.url.replace(&database.server.port().to_string(), &silent.to_string());
    let said = refused(&gone).await;
    assert!(said.contains("check that it runs"), "{said}");
    database.sql(&format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name()));
    assert!(refused(&database.url).await.contains("read only"));
}

#[tokio::test]
async fn another_program_s_database_is_left_alone() {
    let Some(database) = Database::new() else { return };
    database.sql("CREATE TABLE cookies (host text)");
    let said = refused(&database.url).await;
    assert!(said.contains("the schema public has another program's tables"), "{said}");
    let tables = "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.sql(tables), "cookies");
    // A schema of its own in that database is well.
    database.sql("CREATE SCHEMA books AUTHORIZATION leasehold");
    let url = format!("{}?options=-c%20search_path%3Dbooks", database.url);
    Shared::connect(&url, "process", "ws://broker:5327", TERM_MS).await.unwrap();
    assert_eq!(database.sql("SELECT batch FROM books.lab"), "0");
    let said = refused(&url.replace("books", "nothing")).await;
    assert!(said.contains("the search_path names no schema"), "{said}");
}

#[tokio::test]
async fn a_newer_store_is_refused_and_left_alone() {
    let Some(database) = Database::new() else { return };
    let mut store = database.open().await.unwrap();
    commit_next(&mut store).await;
    let newest = schema::VERSIONS.newest();
    database.sql(&format!("INSERT INTO leasehold_version (version) VALUES ({})", newest + 1));
    let (refused, newest) = (database.open().await, schema::VERSIONS.newest());
    assert!(matches!(refused, Err(StoreError::TooNew { found, known }) if found == known + 1 && known == newest));
    assert_eq!(database.sql("SELECT batch || '.' || epoch FROM lab"), "1.1");
}

#[tokio::test]
async fn brokers_that_start_at_once_make_the_tables_once() {
    let Some(database) = Database::new() else { return };
    let started = futures_util::future::join_all((0..6).map(|_| database.shared(TERM_MS))).await;
    for shared in started {
        shared.unwrap();
    }
    let newest = schema::VERSIONS.newest();
    let versions = database.sql("SELECT count(*) || '.' || max(version) FROM leasehold_version");
    assert_eq!(versions, format!("{newest}.{newest}"));
    assert_eq!(database.sql("SELECT count(*) FROM lab"), "1");
    assert_eq!(database.sql("SELECT count(*) FROM broker"), "6");
}

#[tokio::test]
async fn a_newer_version_s_tables_come_with_the_lead() {
    let statements = [schema::VERSIONS.0, &["ALTER TABLE lab ADD later INT"]].concat();
    let versions = schema::Versions(Box::leak(statements.into_boxed_slice()));
    let Some(database) = Database::new() else { return };
    let mut old = database.open().await.unwrap();
    commit_next(&mut old).await;
    let target = Target::parse(&database.url).unwrap();
    let mut newer = Shared::connect_as(versions, target, ("newer", "ws://newer:5327"), TERM_MS).await.unwrap();
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'lab' AND column_name = 'later'";
    assert_eq!(database.sql(columns), "0", "the old version leads and knows nothing of it");
    let seen = newer.observe().await.unwrap();
    assert!(matches!(newer.take(seen.epoch, seen.beat + 1).await.unwrap(), Taken::Passed));
    assert_eq!(database.sql(columns), "0", "it did not get the lead");
    let mut led = taken(newer.take(seen.epoch, seen.beat).await.unwrap());
    assert_eq!(database.sql(columns), "1");
    commit_next(&mut led).await;
    assert_holds(&mut led, 2).await;
    let (refused, newest) = (database.open().await, schema::VERSIONS.newest());
    assert!(matches!(refused, Err(StoreError::TooNew { found, known }) if found == known + 1 && known == newest));
}

#[tokio::test]
async fn a_replica_behind_the_same_address_is_not_believed() {
    // A server of this test's own, as it is made a replica.
    let Some(server) = Server::find(&[]) else { return };
    let database =
        Database { url: server.database(), server: Box::leak(Box::new(server)), processes: AtomicU64::new(0) };
    let mut store = database.lead(TERM_MS).await.unwrap();
    commit_next(&mut store).await;
    let reader = store.reader();
    let mut standby = database.shared(TERM_MS).await.unwrap();
    reader.confirm().await.unwrap();
    standby.observe().await.unwrap();

    let folder = database.sql("SHOW data_directory");
    database.server.stop("fast").unwrap();
    std::fs::write(format!("{folder}/standby.signal"), "").unwrap();
    database.server.start_again().unwrap();
    assert_eq!(database.sql("SELECT batch FROM lab"), "1", "it has the row, and could be asked");
    let (_, told) = failure(standby.observe().await);
    assert!(told.contains("terminating connection"), "{told}");
    for _ in 0..2 {
        let (_, told) = failure(reader.confirm().await);
        assert!(told.contains("read-only replica"), "{told}");
        let (_, told) = failure(standby.observe().await);
        assert!(told.contains("read-only replica"), "{told}");
    }
    database.sql("SELECT pg_promote()");
    reader.confirm().await.unwrap();
    standby.observe().await.unwrap();
}
