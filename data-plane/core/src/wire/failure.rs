//! Why a delivery failed, as the contract names it.

use sluice_proto::admin::v1::failure::Reason;

use crate::response_event::FailureReason;

impl From<FailureReason> for Reason {
    fn from(reason: FailureReason) -> Self {
        match reason {
            FailureReason::Timeout => Self::Timeout,
            FailureReason::DnsError => Self::DnsError,
            FailureReason::ConnectError => Self::ConnectError,
            FailureReason::TlsError => Self::TlsError,
            FailureReason::ConnectionReset => Self::ConnectionReset,
            FailureReason::EgressDenied => Self::EgressDenied,
            FailureReason::HostNotAllowed => Self::HostNotAllowed,
            FailureReason::LoopDetected => Self::LoopDetected,
            FailureReason::ResponseInvalid => Self::ResponseInvalid,
            FailureReason::AuthError => Self::AuthError,
            FailureReason::ConnectionMissing => Self::ConnectionMissing,
            FailureReason::StepRemoved => Self::StepRemoved,
            FailureReason::RenderError => Self::RenderError,
            FailureReason::RenderInvalidJson => Self::RenderInvalidJson,
            FailureReason::FormValueInvalid => Self::FormValueInvalid,
            FailureReason::RequestInvalid => Self::RequestInvalid,
            FailureReason::Expired => Self::Expired,
            FailureReason::CrashLoop => Self::CrashLoop,
            FailureReason::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_and_the_record_name_a_failure_alike() {
        for reason in FailureReason::ALL {
            assert_eq!(Reason::from(reason).as_str_name(), reason.description());
        }
    }
}
