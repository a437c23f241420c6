//! Files on their way to a store that fails, stalls, lies and comes back.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::timeout;

use super::*;

/// A store in memory that does what it is told.
#[derive(Debug, Default)]
struct Moody {
    inner: InMemory,
    is_down: AtomicBool,
    is_stuck: AtomicBool,
    refuses: AtomicBool,
    /// Says that it wrote what it did not.
    forgets: AtomicBool,
    may_not_be_asked: AtomicBool,
    puts: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

impl Moody {
    async fn mood(&self, key: &Key) -> Result<()> {
        self.puts.fetch_add(1, SeqCst);
        self.most_under_way.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        // Others have time to come.
        sleep(Duration::from_millis(1)).await;
        self.under_way.fetch_sub(1, SeqCst);
        if self.is_stuck.load(SeqCst) {
            sleep(Duration::from_secs(30)).await;
        }
        if self.refuses.load(SeqCst) {
            return Err(Error::PermissionDenied {
                path: key.to_string(),
                source: "<Code>No</Code>".into(),
            });
        }
        match self.is_down.load(SeqCst) || self.is_stuck.load(SeqCst) {
            true => Err(Error::Generic { store: "moody", source: "status code: 503".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Moody {
    async fn put_opts(
        &self,
        key: &Key,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.mood(key).await?;
        if self.forgets.load(SeqCst) && !key.as_ref().contains("_penstock") {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        self.inner.put_opts(key, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.mood(key).await?;
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        if self.may_not_be_asked.load(SeqCst) {
            return Err(Error::PermissionDenied { path: key.to_string(), source: "no".into() });
        }
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl Moody {
    /// What arrived, below the prefix, without the object that shows that it can be written.
    async fn arrived(&self) -> BTreeMap<String, Vec<u8>> {
        let all: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let mut arrived = BTreeMap::new();
        for object in all {
            let Some(name) = object.location.as_ref().strip_prefix("logs/files/") else { continue };
            let bytes = self.inner.get(&object.location).await.unwrap().bytes().await.unwrap();
            arrived.insert(format!("files/{name}"), bytes.to_vec());
        }
        arrived
    }
}

/// What delivers to a store what a process has in its outbox.
fn uploader(process: &Process, store: &Arc<Moody>, keep_local: bool) -> Uploader {
    let opened = store.clone();
    Uploader {
        outbox: process.parts.outbox.clone().unwrap(),
        folder: process.parts.folder.clone(),
        open: Arc::new(move || Ok(opened.clone())),
        url: "s3://bucket/logs".into(),
        beneath: None,
        prefix: Key::from("logs"),
        instance: "0000abcd".into(),
        keep_local,
        uploads: 2,
        metrics: process.parts.metrics.clone(),
    }
}

/// Starts to deliver.
fn deliver(process: &Process, store: &Arc<Moody>, keep_local: bool) -> tokio::task::JoinHandle<()> {
    let uploader = uploader(process, store, keep_local);
    tasks::spawn("deliver", async move { match uploader.run().await {} })
}

async fn until_empty(process: &Process) {
    let outbox = process.parts.outbox.as_ref().unwrap();
    let empty = async {
        while outbox.figures().0 > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(3600), empty).await.expect("delivered");
}

/// A folder whose segments were converted, and what the files are.
fn converted(segments: u64) -> (TempDir, Process, BTreeMap<String, Vec<u8>>) {
    let folder = folder();
    (1..=segments).for_each(|number| segment(&folder, number, 3));
    let process = process(&folder, true);
    process.convert_all();
    let files = parquet(&folder);
    assert_eq!(files.len() as u64, segments);
    (folder, process, files)
}

fn notes(folder: &TempDir) -> usize {
    files(&folder.path().join("outbox")).len()
}

#[tokio::test(start_paused = true)]
async fn files_arrive_as_they_are_and_leave_this_machine() {
    let (folder, process, expected) = converted(9);
    let store = Arc::new(Moody::default());
    let task = deliver(&process, &store, false);
    until_empty(&process).await;
    task.abort();
    assert_eq!(store.arrived().await, expected);
    assert_eq!(parquet(&folder), BTreeMap::new());
    assert_eq!(notes(&folder), 0);
    assert_eq!(store.most_under_way.load(SeqCst), 2);
    assert_eq!(store.puts.load(SeqCst), 10, "one for each file, and one to see that it works");
}

#[tokio::test(start_paused = true)]
async fn files_may_stay_on_this_machine_too() {
    let (folder, process, expected) = converted(2);
    let store = Arc::new(Moody::default());
    let task = deliver(&process, &store, true);
    until_empty(&process).await;
    task.abort();
    assert_eq!(store.arrived().await, expected);
    assert_eq!(parquet(&folder), expected);
    assert_eq!(notes(&folder), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_stalls_refuses_and_returns_loses_nothing() {
    let (folder, process, expected) = converted(5);
    let store = Arc::new(Moody::default());
    let moods = [&store.is_down, &store.is_stuck, &store.refuses, &store.forgets];
    moods[0].store(true, SeqCst);
    let task = deliver(&process, &store, false);
    for (mood, next) in moods.iter().zip(moods.iter().skip(1).map(Some).chain([None])) {
        sleep(Duration::from_secs(600)).await;
        assert_eq!(store.arrived().await, BTreeMap::new(), "{mood:?}");
        assert_eq!(parquet(&folder), expected);
        mood.store(false, SeqCst);
        if let Some(next) = next {
            next.store(true, SeqCst);
        }
    }
    until_empty(&process).await;
    task.abort();
    assert_eq!(store.arrived().await, expected);
    assert_eq!(parquet(&folder), BTreeMap::new());
    // Ten minutes each, with pauses of up to a minute: it was left in peace.
    assert!(store.puts.load(SeqCst) < 250, "{:?}", store.puts);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_may_be_written_and_not_asked_is_taken_at_its_word() {
    let (folder, process, expected) = converted(2);
    let store = Arc::new(Moody::default());
    store.may_not_be_asked.store(true, SeqCst);
    let task = deliver(&process, &store, false);
    until_empty(&process).await;
    task.abort();
    store.may_not_be_asked.store(false, SeqCst);
    assert_eq!(store.arrived().await, expected);
    assert_eq!(parquet(&folder), BTreeMap::new());
}

/// A store that is a folder, at these paths.
fn folders(store: &Path) -> LogStore {
    configured(&format!("url = 'file://{}'", store.display()))
}

#[test]
fn a_store_within_the_folder_of_the_log_or_around_it_is_refused_however_it_is_called() {
    let (place, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let log = place.path().join("state/log");
    fs::create_dir_all(&log).unwrap();
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    let refused = [
        log.clone(),
        log.join("files/not/there/yet"),
        place.path().join("state"),
        link.clone(),
        link.join("files"),
    ];
    for store in refused {
        let error = store::apart(&folders(&store), &log).unwrap_err();
        assert!(error.starts_with("prediction_log.store.url: "), "{error}");
    }
    let taken = [elsewhere.path().to_owned(), place.path().join("state/log2"), "/no/such".into()];
    for store in taken {
        assert_eq!(store::apart(&folders(&store), &log), Ok(()), "{}", store.display());
    }
}

#[tokio::test]
async fn a_log_whose_store_is_its_own_folder_does_not_start() {
    let folder = folder();
    let started = Delivery::start(Settings {
        folder: folder.path().to_owned(),
        lock: None,
        instance: INSTANCE,
        disk: Disk::default(),
        store: Some(folders(folder.path())),
        hold: Box::new(|_| {}),
    });
    assert!(started.unwrap_err().to_string().contains("prediction_log.store.url"));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_not_deleted_where_the_store_has_no_other_one() {
    let (folder, process, expected) = converted(2);
    // As if a mount had brought the log's folder there since the start.
    let own = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let own: Arc<dyn ObjectStore> = Arc::new(own);
    let uploader = Uploader {
        open: Arc::new(move || Ok(own.clone())),
        prefix: Key::default(),
        beneath: Some(folder.path().to_owned()),
        ..uploader(&process, &Arc::default(), false)
    };
    let task = tasks::spawn("deliver", async move { match uploader.run().await {} });
    sleep(Duration::from_secs(60)).await;
    task.abort();
    assert_eq!(parquet(&folder), expected);
    assert_eq!(process.parts.outbox.as_ref().unwrap().figures().0, 2);
}

#[tokio::test(start_paused = true)]
async fn files_whose_note_cannot_be_read_are_held_and_delivered_all_the_same() {
    let (folder, first, expected) = converted(3);
    drop(first);
    fs::write(folder.path().join("outbox/00000002.json"), "{\"files\"").unwrap();
    let process = process(&folder, true);
    let outbox = process.parts.outbox.as_ref().unwrap();
    assert!(expected.keys().all(|name| outbox.holds(name)));
    // Its number may come again where people copied files about.
    let other = "files/model=a/version=1/date=2025-11-22/hour=00/0000abce-00000002-00.parquet";
    let path = folder.path().join(other);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "other").unwrap();
    outbox.add(2, &[other.to_owned()]).unwrap();
    let again = Outbox::open(folder.path().join("outbox")).unwrap();
    assert!(expected.keys().all(|name| again.holds(name)) && again.holds(other));
    let store = Arc::new(Moody::default());
    let task = deliver(&process, &store, false);
    until_empty(&process).await;
    task.abort();
    assert_eq!(store.arrived().await.len(), 4);
    assert_eq!(notes(&folder), 0);
}

#[test]
fn what_was_in_hand_when_delivering_panicked_is_handed_out_again() {
    let (_folder, process, expected) = converted(2);
    let outbox = process.parts.outbox.as_ref().unwrap();
    let next = || futures_util::FutureExt::now_or_never(outbox.next(9));
    let mut items = next().unwrap();
    assert!(next().is_none());
    outbox.delivered(&items.remove(0));
    outbox.take_back();
    assert_eq!(next(), Some(items));
    assert_eq!(outbox.figures().0, expected.len() - 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_in_parts_and_arrives_whole() {
    let folder = folder();
    let name = "files/model=a/version=1/date=2025-11-22/hour=00/0000abcd-00000001-00.parquet";
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|i| (i % 251) as u8).collect();
    file.write_all(&bytes).unwrap();
    let process = process(&folder, true);
    process.parts.outbox.as_ref().unwrap().add(1, &[name.to_owned()]).unwrap();
    let store = Arc::new(Moody::default());
    let task = deliver(&process, &store, false);
    until_empty(&process).await;
    task.abort();
    assert!(store.arrived().await[name] == bytes);
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_of_a_delivery_leaves_each_file_there_once() {
    // Uploaded or not, deleted here or not, the note still there: as a crash leaves it.
    for (uploaded, deleted) in [(false, false), (true, false), (true, true)] {
        let (folder, first, expected) = converted(3);
        let store = Arc::new(Moody::default());
        let (name, bytes) = expected.first_key_value().unwrap();
        if uploaded {
            let key = Key::parse(format!("logs/{name}")).unwrap();
            store.put(&key, bytes.clone().into()).await.unwrap();
        }
        if deleted {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        drop(first);
        let second = process(&folder, true);
        let task = deliver(&second, &store, false);
        until_empty(&second).await;
        task.abort();
        assert_eq!(store.arrived().await, expected, "{uploaded} {deleted}");
        assert_eq!(parquet(&folder), BTreeMap::new());
        assert_eq!(notes(&folder), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_somebody_took_holds_up_no_other() {
    let (folder, process, mut expected) = converted(3);
    let (name, _) = expected.pop_first().unwrap();
    fs::remove_file(folder.path().join(name)).unwrap();
    let store = Arc::new(Moody::default());
    let task = deliver(&process, &store, false);
    until_empty(&process).await;
    task.abort();
    assert_eq!(store.arrived().await, expected);
    assert_eq!(notes(&folder), 0);
}

#[test]
fn what_went_wrong_is_told_without_what_was_sent() {
    let denied =
        |text: &'static str| Error::PermissionDenied { path: "x".into(), source: text.into() };
    let generic = |text: &'static str| Error::Generic { store: "S3", source: text.into() };
    let body = "status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>";
    assert_eq!(
        store::describe(&denied(body)),
        "the store refuses these credentials (403): InvalidAccessKeyId"
    );
    assert_eq!(
        store::describe(&generic("status code: 503 Slow Down: <Code>SlowDown</Code>")),
        "the store answered 503: SlowDown"
    );
    let signed = "PUT https://account.blob.core.windows.net/c/x?sig=SECRET failed\nSECRET";
    let told = store::describe(&generic(signed));
    assert!(!told.contains("SECRET"), "{told}");
}

fn configured(text: &str) -> LogStore {
    let text = format!("version = 1\n[prediction_log.store]\n{text}");
    crate::config::parse(&text, Path::new("")).unwrap().prediction_log.unwrap().store.unwrap()
}

#[test]
fn every_kind_of_store_opens_with_credentials_of_a_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("store.env");
    let opened = |lines: &str, text: &str| {
        fs::write(&file, lines).unwrap();
        let text = format!("{text}\ncredentials = '{}'", file.display());
        store::open(&configured(&text)).map(|store| store.to_string())
    };
    let s3 = "# a comment\nexport AWS_ACCESS_KEY_ID=\"a\"\n\nAWS_SECRET_ACCESS_KEY='SECRET'\n";
    let plain = "url = 's3://bucket/x'\nendpoint = 'http://127.0.0.1:9'\nallow_http = true";
    assert_eq!(opened(s3, plain).unwrap(), "AmazonS3(bucket)");
    let key = "AZURE_STORAGE_ACCOUNT_NAME=account\nAZURE_STORAGE_ACCOUNT_KEY=U0VDUkVU\n";
    assert!(opened(key, "url = 'az://box/x'").unwrap().contains("box"));
    assert!(
        opened("GOOGLE_SKIP_SIGNATURE=true", "url = 'gs://bucket/x'").unwrap().contains("bucket")
    );
    let url = format!("url = 'file://{}/deeper'", folder.path().display());
    assert!(opened("", &url).is_ok());
    assert!(folder.path().join("deeper").is_dir());
    for (lines, wrong) in [
        ("# keys\nAWS_SECRET_KEYS=SECRET", "line 2 names nothing this store knows"),
        ("SECRET", "line 1 is not NAME=value"),
        // A key of base64 alone looks like a name.
        ("SECRET+a/b==", "line 1 names nothing this store knows"),
    ] {
        let error = opened(lines, plain).unwrap_err();
        assert!(error.starts_with("prediction_log.store.credentials: "), "{error}");
        assert!(error.contains(wrong), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
    let gone = store::open(&configured("url = 's3://b'\ncredentials = '/there/is/none'"));
    assert!(gone.unwrap_err().contains("/there/is/none"));
}
