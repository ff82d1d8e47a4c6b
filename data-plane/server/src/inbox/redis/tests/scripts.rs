//! How a server comes to have the scripts.

use std::collections::HashMap;

use ::redis::cmd;

use super::*;

/// How often commands of these names were called.
fn calls(server: &Server, names: &[&str]) -> u64 {
    let told: String = cmd("INFO").arg("commandstats").query(&mut server.client()).unwrap();
    let called = told.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        names.contains(&name).then(|| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    });
    called.sum()
}

/// The names of all libraries.
fn libraries(server: &Server) -> Vec<String> {
    let all: Vec<HashMap<String, ::redis::Value>> = cmd("FUNCTION").arg("LIST").query(&mut server.client()).unwrap();
    all.iter().map(|library| value::text(&library["library_name"]).unwrap().to_owned()).collect()
}

/// A user who may do everything but this, and what a plane says to be it.
fn without(server: &Server, refused: &[&str]) -> RedisSettings {
    cmd("ACL")
        .arg("SETUSER")
        .arg(&["plain", "on", ">secret", "~*", "&*", "+@all"])
        .arg(refused)
        .query::<()>(&mut server.client())
        .unwrap();
    let url = Secret::new(format!("{}?user=plain&pass=secret", server.url().expose()));
    RedisSettings { url, ..settings(server, "a") }
}

async fn works(inbox: &Redis) {
    let id = enqueue(inbox).await;
    let job = take(inbox, 1).await.remove(0);
    assert_eq!(job.id, id);
    assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
}

#[tokio::test]
async fn functions_are_made_once_and_loaded_again_when_they_are_forgotten() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    works(&inbox).await;
    cmd("FUNCTION").arg("FLUSH").query::<()>(&mut server.client()).unwrap();
    works(&inbox).await;
    open(settings(&server, "b")).await.close().await;
    assert_eq!(calls(&server, &["eval", "evalsha", "script|load"]), 0);
    assert!(calls(&server, &["fcall"]) > 6);
    assert_eq!(libraries(&server).len(), 1);
}

#[tokio::test]
async fn a_server_that_takes_no_functions_runs_scripts() {
    for refused in [&["-function|load"][..], &["-function", "-fcall"]] {
        let server = Server::start().await;
        let inbox = open(without(&server, refused)).await;
        works(&inbox).await;
        cmd("SCRIPT").arg("FLUSH").query::<()>(&mut server.client()).unwrap();
        works(&inbox).await;
        assert!(calls(&server, &["evalsha"]) > 6);
        assert_eq!((calls(&server, &["fcall"]), libraries(&server)), (0, vec![]));
    }
}

/// A library needs memory, and what makes room must be done without.
#[tokio::test]
async fn without_memory_for_functions_there_is_room_made_by_scripts() {
    let server = Server::start().await;
    let inbox = open(settings(&server, "a")).await;
    enqueue(&inbox).await;
    let job = take(&inbox, 1).await.remove(0);
    let mut client = server.client();
    cmd("FUNCTION").arg("FLUSH").query::<()>(&mut client).unwrap();
    cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query::<()>(&mut client).unwrap();
    assert_eq!(inbox.finish(job.id, job.fence, done()).await, Ok(()));
    assert_eq!(inbox.accept(request(None, vec![])).await, Err(Unavailable));
}

#[tokio::test]
async fn what_other_builds_have_left_is_cleared_away_and_nothing_else() {
    let server = Server::start().await;
    for name in ["sluice_0123456789abcdef", "mine"] {
        let text = format!("#!lua name={name}\nredis.register_function('{name}', function() return 1 end)\n");
        cmd("FUNCTION").arg("LOAD").arg(text).query::<()>(&mut server.client()).unwrap();
    }
    let earlier = open(settings(&server, "a")).await;
    let [ours] = libraries(&server).into_iter().filter(|name| name != "mine").collect::<Vec<_>>().try_into().unwrap();
    assert!(ours.starts_with("sluice_") && ours != "sluice_0123456789abcdef", "{ours}");
    assert_eq!(libraries(&server).len(), 2);
    // One that works there while another build clears away.
    cmd("FUNCTION").arg("DELETE").arg(&ours).query::<()>(&mut server.client()).unwrap();
    works(&earlier).await;
    assert_eq!(libraries(&server).len(), 2);
}

#[tokio::test]
async fn who_may_not_clear_away_works_all_the_same() {
    let server = Server::start().await;
    works(&open(without(&server, &["-function|list", "-function|delete"])).await).await;
    assert_eq!((calls(&server, &["evalsha"]), libraries(&server).len()), (0, 1));
}
