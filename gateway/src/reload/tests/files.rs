//! Real files in a folder, written as editors, copying programs and Kubernetes write them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Longer than anything here takes; whoever waits so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows a real file by the system's hints alone: a poll would come too late for any test.
struct Disk {
    folder: TempDir,
    double: Double,
    reloader: Arc<Reloader>,
    task: JoinHandle<()>,
}

impl Disk {
    /// Follows `name`, which `prepare` has put into the folder.
    async fn follow(name: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        prepare(folder.path());
        let source = Source::new(folder.path().join(name), |_| {});
        let (found, double) = (source.read(), Double::default());
        let config = source.config(&found).unwrap();
        let reloader = Reloader::new(source, config, found, Box::new(double.clone()));
        let reloader = Arc::new(reloader);
        let mut hints = Hints::about(reloader.path());
        // Before anything is written, so that no hint is missed.
        hints.aim().await;
        let timing = Timing {
            poll: 10 * PATIENCE,
            settle: Duration::from_millis(20),
            limit: Duration::from_secs(5),
        };
        let followed = reloader.clone();
        let task =
            tasks::spawn("follow", async move { match followed.follow(hints, timing).await {} });
        Self { folder, double, reloader, task }
    }

    async fn plain() -> Self {
        Self::follow("penstock.toml", |folder| {
            fs::write(folder.join("penstock.toml"), START).unwrap();
        })
        .await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until this value is in force.
    async fn reaches(&self, consecutive: u32) {
        let mut applied = self.double.applied.subscribe();
        let is_there = |all: &Vec<Config>| {
            all.last().is_some_and(|config| config.breaker.consecutive == consecutive)
        };
        let reached = timeout(PATIENCE, applied.wait_for(is_there)).await;
        reached.expect("the change is found").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_file_written_in_place_is_followed() {
    let disk = Disk::plain().await;
    for value in [6, 7] {
        fs::write(disk.path("penstock.toml"), text(value)).unwrap();
        disk.reaches(value).await;
    }
    assert_eq!(disk.double.count(), 2);
}

#[tokio::test]
async fn a_file_that_a_new_one_is_renamed_over_is_followed() {
    let disk = Disk::plain().await;
    for value in [6, 7, 8] {
        fs::write(disk.path(".penstock.toml.swp"), text(value)).unwrap();
        fs::rename(disk.path(".penstock.toml.swp"), disk.path("penstock.toml")).unwrap();
        disk.reaches(value).await;
    }
    // With a copy of the old one left aside, as editors do it.
    fs::rename(disk.path("penstock.toml"), disk.path("penstock.toml~")).unwrap();
    fs::write(disk.path("penstock.toml"), text(9)).unwrap();
    disk.reaches(9).await;
}

#[tokio::test]
async fn a_file_that_was_removed_and_comes_again_is_followed() {
    let disk = Disk::plain().await;
    fs::remove_file(disk.path("penstock.toml")).unwrap();
    fs::write(disk.path("penstock.toml"), text(6)).unwrap();
    disk.reaches(6).await;
}

#[tokio::test]
async fn a_link_that_is_turned_to_another_folder_is_followed() {
    // As Kubernetes mounts a ConfigMap: the file is a link into ..data, which is a link to a folder
    // of one generation and is replaced by a rename; the old folder is removed.
    let generation = |folder: &Path, number: u32, text: &str| {
        let target = format!("..2026_{number}");
        fs::create_dir(folder.join(&target)).unwrap();
        fs::write(folder.join(&target).join("penstock.toml"), text).unwrap();
        symlink(&target, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let disk = Disk::follow("penstock.toml", |folder| {
        generation(folder, 5, START);
        symlink("..data/penstock.toml", folder.join("penstock.toml")).unwrap();
    })
    .await;
    for number in [6, 7, 8] {
        generation(disk.folder.path(), number, &text(number));
        fs::remove_dir_all(disk.path(&format!("..2026_{}", number - 1))).unwrap();
        disk.reaches(number).await;
    }
}

#[tokio::test]
async fn the_file_behind_a_link_elsewhere_is_followed_and_another_one_after_it() {
    let other = TempDir::new().unwrap();
    let (first, second) = (other.path().join("a/x.toml"), other.path().join("b/x.toml"));
    for file in [&first, &second] {
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(file, START).unwrap();
    }
    let disk = Disk::follow("penstock.toml", |folder| {
        symlink(&first, folder.join("penstock.toml")).unwrap();
    })
    .await;
    fs::write(&first, text(6)).unwrap();
    disk.reaches(6).await;
    fs::write(&second, text(7)).unwrap();
    symlink(&second, disk.path("new")).unwrap();
    fs::rename(disk.path("new"), disk.path("penstock.toml")).unwrap();
    disk.reaches(7).await;
    fs::write(&second, text(8)).unwrap();
    disk.reaches(8).await;
}

#[tokio::test]
async fn what_is_no_file_of_text_is_refused_by_name() {
    let disk = Disk::plain().await;
    let path = disk.path("penstock.toml");
    let told = async || {
        let asked = Asked::by_signal();
        disk.reloader.reload(&asked).await.unwrap_err()[0].to_string()
    };
    fs::remove_file(&path).unwrap();
    assert!(told().await.contains("penstock.toml: No such file"), "{}", told().await);
    fs::create_dir(&path).unwrap();
    assert!(told().await.ends_with("it is no regular file"), "{}", told().await);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(told().await.starts_with("is not text: "), "{}", told().await);
    fs::write(&path, "#".repeat((16 << 20) + 1)).unwrap();
    assert!(told().await.ends_with("it is longer than 16 MiB"), "{}", told().await);
    assert_eq!(disk.double.count(), 0);
}
