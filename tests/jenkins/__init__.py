"""A linter for declarative Jenkinsfiles: real Groovy grammar, the rules of Jenkins' pipeline syntax."""
