//! What configuration means: pure, without runtime, clock, environment or randomness.
//!
//! | Module | Answers |
//! |---|---|
//! | [`wire`] | how a proto message becomes the model, and every rule it breaks |
//! | [`validate`] | what a broken rule looks like |
//! | [`model`] | configuration as it is used |
//! | [`form`] | which values a form takes, and as what templates get them |
//! | [`icon`] | which pictures are icons |
//! | [`request`] | what is sent |
//! | [`cause`] | what starts a workflow: a request or an event |
//! | [`level`] | which configuration a build understands |
//! | [`lineage`] | what a call carries on from the request that caused it |
//! | [`credentials`] | what a connection puts on it |
//! | [`envelope`] | what a template, a filter and a dedup rule see of a trigger |
//! | [`path`] | how a value in a body is named, and found again |
//! | [`flatten`] | which parameters a body has |
//! | [`sample`] | what of a captured request can be chosen |
//! | [`filter`] | does this workflow want this trigger |
//! | [`dedup`] | which triggers are the same |
//! | [`incoming_auth`] | may this sender trigger: webhooks from Meta |
//! | [`jwt`] | may this sender trigger: tokens |
//! | [`address`] | may this URL and this address be called |
//! | [`template`] | what a template prints |
//! | [`curl`] | which request a cURL command says, and which command says a request |
//! | [`response_event`] | what a delivery tells afterwards |
//! | [`redact`] | what of an answer is shown |
//! | [`seal`] | how a secret rests |
//! | [`api_key`] | what an API key looks like |
//! | [`failed_keys`] | how many wrong ones are too many |

pub mod address;
pub mod api_key;
pub mod cause;
pub mod credentials;
pub mod curl;
pub mod dedup;
pub mod envelope;
pub mod failed_keys;
pub mod filter;
pub mod flatten;
pub mod form;
pub mod icon;
pub mod incoming_auth;
pub mod join_token;
pub mod jwt;
pub mod level;
pub mod lineage;
pub mod model;
pub mod path;
pub mod redact;
pub mod request;
pub mod response_event;
pub mod sample;
pub mod seal;
pub mod snapshot;
pub mod template;
pub mod validate;
pub mod wire;
