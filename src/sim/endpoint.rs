//! A REST call's way in and out: what a script has ordered for its endpoint happens around what is done.

use std::time::Duration;

use crate::kernel::time::Time;
use crate::sim::exchange::{Exchange, HttpAnswer, HttpReply, HttpRequest};
use crate::sim::faults::EndpointFault;
use crate::sim::refusal::Refusal;

impl Exchange {
    pub fn http(&mut self, now: Time, request: &HttpRequest) -> HttpReply {
        let fault = if request.held { None } else { self.faults.strike_endpoint(&request.method, &request.path) };
        match fault {
            Some(EndpointFault::Answer { status, code, msg, retry_after }) => {
                let retry_at = retry_after.map(|seconds| now + Duration::from_secs(seconds.into()));
                let refusal = Refusal { retry_at, ..Refusal::new(status, code, msg) };
                HttpReply::Answer(HttpAnswer::new(now, Err(refusal), Vec::new()))
            }
            Some(EndpointFault::Hold { ms }) => HttpReply::Held(Duration::from_millis(ms)),
            Some(EndpointFault::Cut) => HttpReply::Cut,
            Some(EndpointFault::Late { ms }) => HttpReply::Late(Duration::from_millis(ms), self.done(now, request)),
            Some(EndpointFault::CutAfter) => {
                self.done(now, request);
                HttpReply::Cut
            }
            Some(EndpointFault::UnknownAfter) => {
                let HttpAnswer { headers, .. } = self.done(now, request);
                HttpReply::Answer(HttpAnswer::new(now, Err(Refusal::unknown_outcome()), headers))
            }
            Some(EndpointFault::Garbage) => {
                HttpReply::Answer(HttpAnswer { body: "<html>{\"code\":".to_owned(), ..self.done(now, request) })
            }
            None => HttpReply::Answer(self.done(now, request)),
        }
    }

    fn done(&mut self, now: Time, request: &HttpRequest) -> HttpAnswer {
        let answer = self.answered(now, request);
        self.distribute(now);
        answer
    }
}
