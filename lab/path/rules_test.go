package path

import (
	"testing"

	"gauntlet/middlebox"
)

// The names of rules are those that package middlebox gives them.
func TestRuleNames(t *testing.T) {
	for ours, theirs := range map[string]string{
		ruleUnsolicited: middlebox.UnsolicitedRule, ruleUntranslated: middlebox.UntranslatedRule, ruleHairpin: middlebox.HairpinRule,
		ruleNoPort: middlebox.NoPortRule, ruleNotAllowed: middlebox.NotAllowedRule, ruleTCPIdle: middlebox.TCPIdleRule, ruleNotProxied: middlebox.NotProxiedRule,
		ruleUDPRate: middlebox.UDPRateRule, ruleBlock + "udp": middlebox.BlockRule(middlebox.UDP), ruleDeny + "login": middlebox.DenyRule("login"),
	} {
		if ours != theirs {
			t.Errorf("%q is called %q", ours, theirs)
		}
	}
}
