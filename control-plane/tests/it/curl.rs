//! cURL commands of outgoing integrations (R085–R096): read, confirmed, put into drafts, written.

use sluice_proto::admin::v1 as admin;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::world::{ACME, World, has, outgoing, refusal, violations};

const COMMAND: &str = "curl -X PUT 'https://crm.example.com/new?a=1' -H 'X-Tag: one' --json '{}'";
/// The limits of a command, in bytes and words.
const COMMAND_BYTES: usize = 256 * 1024;
const WORDS: usize = 1000;

fn importing(name: &str, command: &str) -> admin::ImportCurlRequest {
    admin::ImportCurlRequest { name: name.to_owned(), command: command.to_owned(), ..Default::default() }
}

impl World {
    async fn parse_curl(&self, command: &str) -> Result<admin::ParseCurlResponse, Status> {
        let request = admin::ParseCurlRequest { parent: ACME.to_owned(), command: command.to_owned() };
        Ok(self.outgoing().parse_curl(request).await?.into_inner())
    }

    async fn import_curl(&self, request: admin::ImportCurlRequest) -> Result<admin::ImportCurlResponse, Status> {
        Ok(self.outgoing().import_curl(request).await?.into_inner())
    }

    /// What an import would change.
    async fn tried_curl(&self, name: &str, command: &str) -> Result<admin::ImportCurlResponse, Status> {
        self.import_curl(admin::ImportCurlRequest { validate_only: true, ..importing(name, command) }).await
    }

    async fn export_curl(&self, name: &str) -> Result<String, Status> {
        let request = admin::ExportCurlRequest { name: name.to_owned() };
        Ok(self.outgoing().export_curl(request).await?.into_inner().command)
    }

    async fn stored_draft(&self, name: &str) -> admin::OutgoingIntegration {
        let request = admin::GetOutgoingIntegrationRequest { name: name.to_owned() };
        self.outgoing().get_outgoing_integration(request).await.unwrap().into_inner()
    }

    async fn sending_request(&self, id: &str, request: admin::OutgoingRequest) -> String {
        let document = admin::OutgoingIntegration { request: Some(request), ..outgoing("") };
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: ACME.to_owned(),
            outgoing_integration_id: id.to_owned(),
            outgoing_integration: Some(document),
            ..Default::default()
        };
        self.outgoing().create_outgoing_integration(request).await.unwrap().into_inner().name
    }
}

fn paths(answer: &admin::ImportCurlResponse) -> Vec<&str> {
    answer.changes.iter().map(|change| change.path.as_str()).collect()
}

fn header(name: &str, value: &str) -> admin::RequestHeader {
    admin::RequestHeader { name: name.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn a_command_fills_an_empty_integration_but_its_names() {
    let world = World::new().await;
    let read = world.parse_curl(&format!("{COMMAND} -u me:CANARY-secret --silent")).await.unwrap();
    assert!(!format!("{read:?}").contains("CANARY"), "{read:?}");
    let (request, reading) = (read.request.unwrap(), read.reading.unwrap());
    assert_eq!((request.method(), request.url.as_str()), (admin::HttpMethod::Put, "https://crm.example.com/new?a=1"));
    assert!(request.headers.contains(&header("X-Tag", "one")), "{request:?}");
    assert_eq!(
        (request.body.as_deref(), request.webhook_name.as_str(), request.event_name.as_str()),
        (Some("{}"), "", "")
    );
    assert!(reading.suggested_connection.starts_with("Login & Password: me"), "{reading:?}");
    assert!(reading.ignored_options.iter().any(|ignored| ignored.option == "--silent"), "{reading:?}");
    let listed =
        |name: &str, value: &str| admin::CurlUrlParameter { name: name.to_owned(), value: Some(value.to_owned()) };
    assert_eq!(reading.url_parameters, [listed("a", "1")], "S43");
    let secret = world.parse_curl("curl 'https://a.example/?q=x&api_key=CANARY-0123456789&flag'").await.unwrap();
    let parameters = secret.reading.unwrap().url_parameters;
    let bare = admin::CurlUrlParameter { name: "flag".to_owned(), value: None };
    assert_eq!(parameters, [listed("q", "x"), listed("api_key", "******"), bare]);
    // The author fills in the name, and nothing has to be confirmed.
    let named = admin::OutgoingRequest { webhook_name: "Send".to_owned(), ..request };
    let name = world.sending_request("send", named).await;
    assert_eq!(world.tried_curl(&name, COMMAND).await.unwrap().changes, []);
}

#[tokio::test]
async fn what_is_filled_changes_only_after_its_list_of_changes_is_confirmed() {
    let world = World::new().await;
    world.connection("crm", "s3cret").await;
    let request = outgoing("workspaces/acme/connections/crm").request.unwrap();
    let headers = vec![header("X-Api-Key", "CANARY-key")];
    let name = world.sending_request("send", admin::OutgoingRequest { headers, ..request }).await;
    let before = world.stored_draft(&name).await;

    let tried = world.tried_curl(&name, COMMAND).await.unwrap();
    assert_eq!((&tried.name, &tried.etag), (&name, &before.etag));
    let expected = ["method", "url", "headers[\"Accept\"]", "headers[\"X-Api-Key\"]", "headers[\"X-Tag\"]", "body"];
    assert_eq!(paths(&tried), expected);
    assert_eq!(tried.changes[0].old_value.as_deref(), Some("POST"));
    assert_eq!(tried.changes[0].new_value.as_deref(), Some("PUT"));
    assert!(tried.changes.iter().any(|change| change.masked) && !format!("{tried:?}").contains("CANARY"), "{tried:?}");
    assert_eq!(world.stored_draft(&name).await, before, "only tried");

    let unconfirmed = world.import_curl(importing(&name, COMMAND)).await.unwrap_err();
    assert!(has(&violations(&unconfirmed), "etag", "REQUIRED"), "{unconfirmed:?}");
    assert_eq!(world.stored_draft(&name).await, before, "not confirmed");

    let request_id = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    let confirmed = admin::ImportCurlRequest { etag: tried.etag.clone(), request_id, ..importing(&name, COMMAND) };
    let done = world.import_curl(confirmed.clone()).await.unwrap();
    assert_eq!(done.changes, tried.changes, "what was confirmed is what was done");
    let after = world.stored_draft(&name).await;
    assert!(after.etag == done.etag && after.etag != before.etag);
    let (request, old) = (after.request.clone().unwrap(), before.request.unwrap());
    assert_eq!((request.method(), request.url.as_str()), (admin::HttpMethod::Put, "https://crm.example.com/new?a=1"));
    assert_eq!((request.webhook_name, request.connection), (old.webhook_name, old.connection), "these stay");
    assert_eq!(world.import_curl(confirmed).await.unwrap(), done, "the same request, the same answer");
    assert_eq!(world.tried_curl(&name, COMMAND).await.unwrap().changes, [], "no changes");
    let again = admin::ImportCurlRequest { etag: after.etag.clone(), ..importing(&name, COMMAND) };
    world.import_curl(again).await.unwrap();
    assert_eq!(world.stored_draft(&name).await, after, "an import without changes is none");
}

#[tokio::test]
async fn a_confirmation_is_for_the_draft_that_was_shown() {
    let world = World::new().await;
    let name = world.outgoing_integration("send", "").await.name;
    let shown = world.tried_curl(&name, COMMAND).await.unwrap().etag;
    let mut other = world.stored_draft(&name).await;
    other.display_name = "Changed".to_owned();
    let update = admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(other), ..Default::default() };
    let changed = world.outgoing().update_outgoing_integration(update).await.unwrap().into_inner();
    for validate_only in [true, false] {
        let late = admin::ImportCurlRequest { etag: shown.clone(), validate_only, ..importing(&name, COMMAND) };
        let refused = world.import_curl(late).await.unwrap_err();
        assert_eq!(refusal(&refused), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    }
    assert_eq!(world.stored_draft(&name).await, changed);
}

#[tokio::test]
async fn a_command_that_cannot_be_imported_is_refused_with_its_place_and_changes_nothing() {
    let world = World::new().await;
    let before = world.outgoing_integration("send", "").await;
    let padded = |length: usize| format!("curl https://crm.example.com/ -H 'X: {}'", "x".repeat(length - 38));
    let worded = |words: usize| format!("curl https://crm.example.com/{}", " -s".repeat(words - 2));
    assert_eq!(padded(100).len(), 100);
    for (command, reason, told) in [
        ("curl https://crm.example.com/ -d @CANARY".to_owned(), "CURL_READS_FILE", "line 1, column 31"),
        ("curl 'https://crm.example.com/CANARY".to_owned(), "CURL_UNTERMINATED_QUOTE", "line 1, column 6"),
        (String::new(), "CURL_NOT_CURL", "starts with `curl`"),
        (padded(COMMAND_BYTES + 1), "CURL_TOO_LARGE", "the limit is 262144 bytes"),
        (worded(WORDS + 1), "CURL_TOO_LARGE", "the limit is 1000 words"),
    ] {
        let etag = before.etag.clone();
        let request = admin::ImportCurlRequest { etag, ..importing(&before.name, &command) };
        for refused in [
            world.parse_curl(&command).await.unwrap_err(),
            world.tried_curl(&before.name, &command).await.unwrap_err(),
            world.import_curl(request).await.unwrap_err(),
        ] {
            assert!(has(&violations(&refused), "command", reason), "{reason}: {:?}", refused.get_error_details());
            let text = format!("{} {:?}", refused.message(), refused.get_error_details());
            assert!(text.contains(told) && !text.contains("CANARY"), "{text}");
        }
    }
    assert!(world.parse_curl(&padded(COMMAND_BYTES)).await.is_ok());
    assert!(world.parse_curl(&worded(WORDS)).await.is_ok());
    // What a command can say and a draft cannot hold.
    let long = format!("curl https://crm.example.com/ -H 'X: {}'", "x".repeat(5000));
    let refused = world.tried_curl(&before.name, &long).await.unwrap_err();
    assert!(violations(&refused).iter().any(|(field, _)| field.starts_with("request.headers[")), "{refused:?}");
    assert_eq!(world.stored_draft(&before.name).await, before);
}

#[tokio::test]
async fn an_exported_draft_or_version_holds_no_secret_and_changes_nothing_when_imported() {
    let world = World::new().await;
    world.connection("crm", "CANARY-connection").await;
    let request = outgoing("workspaces/acme/connections/crm").request.unwrap();
    let headers = vec![header("X-Api-Key", "CANARY-header"), header("X-Tag", "it's {{ request.body.id }}")];
    let url = "https://crm.example.com/orders?api_key=CANARY-url&a=1".to_owned();
    let request = admin::OutgoingRequest { headers, url, ..request };
    let name = world.sending_request("send", request).await;
    world.publish_outgoing(&name).await.unwrap();

    let first = world.export_curl(&name).await.unwrap();
    assert!(!first.contains("CANARY") && first.contains("$SLUICE_SECRET_X_API_KEY"), "{first}");
    let back = world.tried_curl(&name, &first).await.unwrap();
    assert_eq!((&*back.changes, back.reading.unwrap().missing_secrets), (&[][..], Vec::new()));

    let etag = world.stored_draft(&name).await.etag;
    world.import_curl(admin::ImportCurlRequest { etag, ..importing(&name, COMMAND) }).await.unwrap();
    assert_eq!(world.export_curl(&format!("{name}/versions/1")).await.unwrap(), first);
    assert_ne!(world.export_curl(&name).await.unwrap(), first);
    // The draft's secrets are gone: the version's command only names them.
    let missing = world.tried_curl(&name, &first).await.unwrap().reading.unwrap().missing_secrets;
    assert_eq!(missing, ["headers[\"X-Api-Key\"]", "url.parameters[\"api_key\"]"]);

    for absent in [format!("{name}/versions/2"), format!("{ACME}/outgoingIntegrations/nope")] {
        assert_eq!(world.export_curl(&absent).await.unwrap_err().code(), Code::NotFound, "{absent}");
    }
    for bad in [format!("{name}/versions/x"), format!("{ACME}/workflows/flow"), String::new()] {
        assert!(world.export_curl(&bad).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_request_that_no_command_can_hold_is_not_exported() {
    let world = World::new().await;
    let request = outgoing("").request.unwrap();
    let body = |quotes: usize| admin::OutgoingRequest {
        body: Some("'".repeat(quotes)),
        template_mode: admin::TemplateMode::Exact.into(),
        ..request.clone()
    };
    // Each quote takes four bytes in a command.
    let name = world.sending_request("most", body(65_000)).await;
    assert!(world.export_curl(&name).await.is_ok());
    let name = world.sending_request("more", body(65_536)).await;
    let refused = world.export_curl(&name).await.unwrap_err();
    assert!(has(&violations(&refused), "name", "CURL_NOT_POSSIBLE"), "{refused:?}");
    assert!(refused.message().contains("262144"), "{}", refused.message());
}
